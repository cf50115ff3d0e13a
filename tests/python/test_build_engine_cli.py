"""`python -m build_engine`: plan folders, their manifest, and refusals."""

from __future__ import annotations

import hashlib
import importlib
import json
import runpy
import shutil
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_engine import backend, build, plan
from build_engine.checkpoint import MappedCheckpoint, checkpoint_hash, content_sha256
from build_engine.cli import app
from build_engine.codec import context_frames
from build_engine.dtypes import convert, to_float32
from build_engine.errors import BuildError
from build_engine.model_config import read_model_config, rope_tables
from typer.testing import CliRunner, Result

from higgs_rt.checkpoint import small_codec_config, write_random_checkpoint, write_random_codec
from higgs_rt.checkpoint.safetensors_file import to_bfloat16_bits, write_safetensors

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
LIMITS = ["--max-batch", "4", "--max-seq-len", "128", "--max-prefill", "16"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def message(*arguments: str | Path) -> str:
    """The one line of a refused command."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    return " ".join(result.output.split())


def build_with(*options: str | Path) -> tuple[str | Path, ...]:
    return ("--targets", "sm89,sm120", *LIMITS, *options)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("build_engine")
    codec = small_codec_config()
    write_random_checkpoint(directory, codebook_size=codec.codebook_size)
    write_random_codec(directory / "codec", codec)
    return directory


@pytest.fixture(scope="module")
def plans(model: Path) -> Path:
    """The plan folder of the model, both plans, for two targets."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs the extra tensorrt-rtx")
    result = run(
        "--model", model, "--output", model / "tensorrt", *build_with("--precision", "fp32")
    )
    assert result.exit_code == 0, result.output
    assert "needs about" in result.output
    return model / "tensorrt"


@pytest.fixture
def copied(plans: Path, tmp_path: Path) -> Path:
    """A plan folder that a test may damage."""
    return Path(shutil.copytree(plans, tmp_path / "plans"))


def edit(folder: Path, change: Any) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


# --- Plan folders -------------------------------------------------------------------------------


def test_manifest_describes_the_plans(plans: Path, model: Path) -> None:
    manifest = json.loads((plans / "manifest.json").read_text())
    assert manifest["backend"] == "tensorrt_rtx"
    assert manifest["targets"] == ["sm89", "sm120"]
    decoder = manifest["decoder"]
    assert decoder["plan_bytes"] == (plans / "decoder.plan").stat().st_size
    assert decoder["checkpoint_hash"] == checkpoint_hash(model)
    assert decoder["limits"]["max_prefill_batch"] == 4
    assert decoder["kv"] == {
        "dtype": "f32",
        "capacity": 128,
        "slot_bytes": 2 * 2 * 2 * 16 * 128 * 4,
    }
    prefill, decode = (profile["dims"] for profile in decoder["profiles"])
    assert prefill["Nt"] == [1, 8, 64]
    assert decode["Nt"] == [0, 0, 0] and decode["S"] == [1, 1, 1]
    named = {binding["name"]: binding for binding in decoder["bindings"]}
    assert named["past_k_1"]["shape"] == ["B", 2, 128, 16]
    assert named["logits"] == {
        "name": "logits",
        "io": "output",
        "dtype": "f32",
        "shape": ["L", 8, 34],
    }
    assert decoder["weight_inputs"] == []
    assert manifest["codec"]["model"]["context_frames"] == 10
    assert not list(plans.glob("*.part"))


def test_verify_prints_a_report(plans: Path, model: Path) -> None:
    result = run("verify", plans, "--model", model)
    assert result.exit_code == 0, result.output
    assert "codec" in result.output and "WRONG" not in result.output


def test_verify_finds_the_model_around_the_folder(plans: Path) -> None:
    assert run("verify", plans).exit_code == 0


def test_verify_runs_a_plan_only_where_it_can(plans: Path, model: Path) -> None:
    """The runtime's own refusal: a build without TensorRT, or no device for it."""
    said = message("verify", plans, "--model", model, "--device", "cpu")
    assert "tensorrt" in said and "[internal]" not in said


def test_weights_as_inputs_are_listed(plans: Path, model: Path, tmp_path: Path) -> None:
    options = build_with("--weights", "inputs", "--component", "decoder", "--precision", "bf16")
    result = run("--model", model, "--output", tmp_path, *options)
    assert result.exit_code == 0, result.output
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert "codec" not in manifest
    listed = {entry["name"]: entry for entry in manifest["decoder"]["weight_inputs"]}
    assert len(listed) == 4 + 2 * 14
    assert listed["layers.1.audio_mlp.down_proj.weight"]["shape"] == [64, 96]
    assert {entry["dtype"] for entry in listed.values()} == {"bf16"}
    # The other component comes beside it.
    result = run("--model", model, "--output", tmp_path, *build_with("--component", "codec"))
    assert result.exit_code == 0, result.output
    assert {"decoder", "codec"} <= set(json.loads((tmp_path / "manifest.json").read_text()))
    assert run("verify", tmp_path, "--model", model).exit_code == 0


def test_demo_voice_builds_and_verifies(demo_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs the extra tensorrt-rtx")
    limits = ("--max-seq-len", "256", "--max-prefill", "64")
    result = run("--model", demo_model, "--output", tmp_path, "--targets", "sm89,sm120", *limits)
    assert result.exit_code == 0, result.output
    result = run("verify", tmp_path, "--model", demo_model)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", ["constants", "inputs"])
def test_golden_manifests_are_what_is_built(name: str, tmp_path: Path) -> None:
    """The C++ side reads these files in its tests; versions and sizes may differ."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs the extra tensorrt-rtx")
    script: dict[str, Any] = runpy.run_path(str(GOLDEN / "make_tensorrt_golden.py"))
    layout, options = script["PLANS"][name]
    arguments = ("--model", GOLDEN / "lm" / layout, "--output", tmp_path)
    result = run(*arguments, *script["COMMON"], *options)
    assert result.exit_code == 0, result.output
    built, kept = (
        json.loads(path.read_text())
        for path in (tmp_path / "manifest.json", GOLDEN / "tensorrt" / f"{name}.json")
    )
    for manifest in (built, kept):
        for field in ("higgs_rt_version", "backend_version"):
            del manifest[field]
        for field in ("plan_bytes", "network_hash"):
            del manifest["decoder"][field]
    assert built == kept


# --- Refusals -----------------------------------------------------------------------------------


def test_no_tensorrt(monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(backend, "_MODULES", {"tensorrt": ("no_such_tensorrt",)})
    said = message("--model", model, "--output", tmp_path, "--backend", "tensorrt")
    assert "pip install 'higgs-rt[tensorrt]'" in said


def test_too_old_tensorrt(monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path) -> None:
    old = types.SimpleNamespace(
        __version__="10.3.0", INetworkDefinition=type("INetworkDefinition", (), {})
    )
    monkeypatch.setattr(importlib, "import_module", lambda name: old)
    said = message("--model", model, "--output", tmp_path)
    assert "[tensorrt 10.3.0] expected the layers" in said and "add_kv_cache_update" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--targets", "sm90"), "[targets] expected some of sm75"),
        (("--precision", "int4"), "[precision] expected bf16, fp16 or fp32, got 'int4'"),
        (("--weights", "stripped"), "[weights] expected constants or inputs"),
        (("--component", "encoder"), "[--component] expected decoder, codec, all"),
        (("--backend", "onnx"), "[--backend] expected tensorrt, tensorrt_rtx"),
        (("--max-batch", "0"), "[max_batch] expected 1..1024, got 0"),
        (("--max-seq-len", "200000"), "[max_seq_len] expected 16..131072, got 200000"),
        (("--max-prefill", "999"), "[max_prefill] expected at most max_seq_len 128, got 999"),
    ],
)
def test_refused_options(
    arguments: tuple[str, ...], said: str, plans: Path, model: Path, tmp_path: Path
) -> None:
    assert said in message("--model", model, "--output", tmp_path, *build_with(*arguments))
    assert not list(tmp_path.iterdir())


def test_current_needs_a_device(
    monkeypatch: pytest.MonkeyPatch, plans: Path, model: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(plan, "current_target", lambda: None)
    said = message("--model", model, "--output", tmp_path)
    assert "expected a CUDA device for 'current', got none; name some of sm75" in said


def test_tensorrt_builds_for_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "current_target", lambda: "sm90")
    package = backend.Package("tensorrt", None, "11.0", True, cross_builds=False)
    assert plan.resolve_targets(package, ("current",)) == ("sm90",)
    with pytest.raises(BuildError, match=r"expected sm90 .* got sm89"):
        plan.resolve_targets(package, ("sm89",))


def test_memory_is_checked_before_the_build(
    monkeypatch: pytest.MonkeyPatch, plans: Path, model: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(plan, "available_memory", lambda: 1 << 20)
    said = message("--model", model, "--output", tmp_path, *build_with())
    assert "[decoder] expected 0.6 GiB of free memory, got 0.0 GiB; --weights inputs" in said


def test_unwritable_output(plans: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = message("--model", model, "--output", tmp_path / "file", *build_with())
    assert "expected a directory" in said


def test_a_full_disk_is_named(plans: Path, model: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    workshop = build.Workshop(backend.load_package("tensorrt_rtx"))
    codec = workshop.codec(model / "codec")
    config = workshop.builder.create_builder_config()
    config.num_compute_capabilities = 1
    trt = workshop.package.trt
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    config.add_optimization_profile(
        plan._to_trt(workshop.builder, codec.definition, build.codec_profiles()[0])
    )
    said = pytest.raises(BuildError, match=r"expected room for the plan, got: .*No space")
    with Path("/dev/full").open("wb", buffering=0) as file, said:
        plan._build_into(workshop.package, workshop.builder, codec.definition, config, file)


def test_a_broken_checkpoint_is_named(plans: Path, model: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(model, tmp_path / "model", ignore=lambda *_: ["tensorrt"]))
    config = json.loads((broken / "config.json").read_text())
    config["num_hidden_layers"] = 3
    (broken / "config.json").write_text(json.dumps(config))
    said = message("--model", broken, "--output", tmp_path / "out", *build_with())
    assert "layers.2" in said
    assert "expected a directory" in message("--model", tmp_path / "no", "--output", tmp_path)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("format_revision", lambda m: m.update(format_revision=2)),
        ("tensor_revision", lambda m: m.update(tensor_revision=0)),
        ("backend", lambda m: m.pop("backend")),
        ("backend_version", lambda m: m.update(backend_version="1.2.0")),
        ("checkpoint_hash", lambda m: m["decoder"].update(checkpoint_hash="fnv1a64:0")),
        ("checkpoint_sha256", lambda m: m["codec"].update(checkpoint_sha256="0")),
        ("network_hash", lambda m: m["decoder"].update(network_hash="fnv1a64:0")),
        ("attention", lambda m: m["decoder"].update(attention="mask")),
        ("decoder.plan", lambda m: m["decoder"].update(plan="../decoder.plan")),
        ("limits", lambda m: m["decoder"].pop("limits")),
        ("decoder or codec", lambda m: (m.pop("decoder"), m.pop("codec"))),
    ],
)
def test_a_wrong_manifest_is_named(field: str, change: Any, copied: Path, model: Path) -> None:
    edit(copied, change)
    assert field in message("verify", copied, "--model", model)


def test_damaged_folders(copied: Path, model: Path, tmp_path: Path) -> None:
    with (copied / "decoder.plan").open("r+b") as file:
        file.truncate(1000)
    said = message("verify", copied, "--model", model)
    assert "decoder.plan_bytes" in said and "got 1000" in said
    (copied / "decoder.plan").unlink()
    assert "expected the file decoder.plan, got none" in message("verify", copied, "--model", model)
    (copied / "manifest.json").write_text("[")
    assert "expected a JSON file" in message("verify", copied, "--model", model)
    assert "expected manifest.json" in message("verify", tmp_path, "--model", model)


def test_another_checkpoint_is_named(plans: Path, tmp_path: Path) -> None:
    """Same shapes, other numbers."""
    codec = small_codec_config()
    write_random_checkpoint(tmp_path, codebook_size=codec.codebook_size, seed=9)
    write_random_codec(tmp_path / "codec", codec)
    assert "checkpoint_hash] expected fnv1a64:" in message("verify", plans, "--model", tmp_path)


# --- Reading checkpoints ------------------------------------------------------------------------


def test_hash_is_defined_by_its_documentation(tmp_path: Path) -> None:
    """A file written by hand, hashed by hand."""
    values = np.arange(100, dtype=np.float32)
    write_safetensors(tmp_path / "model.safetensors", {"b": values, "a": values[:3]})
    (tmp_path / "config.json").write_text("{}")
    raw = (tmp_path / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    stream = b"{}" + b"model.safetensors\0" + len(raw).to_bytes(8, "little") + raw[8 : 8 + length]
    long, short = values.tobytes(), values[:3].tobytes()
    stream += long[:64] + long[200:264] + long[336:] + short + short[6:] + short
    value = 14695981039346656037
    for byte in stream:
        value = ((value ^ byte) * 1099511628211) % 2**64
    assert checkpoint_hash(tmp_path) == f"fnv1a64:{value:016x}"
    name = b"model.safetensors\0" + len(raw).to_bytes(8, "little")
    assert content_sha256(tmp_path) == hashlib.sha256(b"{}" + name + raw).hexdigest()


def test_a_number_between_the_samples_changes_only_the_whole_hash(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    values = np.arange(1000, dtype=np.float32)
    hashes = []
    for _ in range(2):
        write_safetensors(tmp_path / "model.safetensors", {"a": values})
        hashes.append((checkpoint_hash(tmp_path), content_sha256(tmp_path)))
        values[100] += 1
    assert hashes[0][0] == hashes[1][0] and hashes[0][1] != hashes[1][1]


@pytest.mark.parametrize("layout", ["original", "transformers"])
def test_both_layouts_and_shards_give_the_same_tensors(layout: Any, tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "one", dtype="bfloat16")
    write_random_checkpoint(tmp_path / "two", dtype="bfloat16", layout=layout, shards=3)
    one, two = MappedCheckpoint(tmp_path / "one"), MappedCheckpoint(tmp_path / "two")
    for name, shape in (
        ("embed_tokens.weight", (320, 64)),
        ("audio_codebook_embeddings.weight", (256, 64)),
        ("layers.1.audio_mlp.down_proj.weight", (64, 96)),
        ("audio_decoder_proj.audio_lm_head.weight", (256, 64)),
    ):
        np.testing.assert_array_equal(one.get(name, shape).values, two.get(name, shape).values)
    assert one.num_parameters == two.num_parameters
    assert two.weight_dtype == "bf16"
    with pytest.raises(BuildError, match=r"norm\.weight\] expected \(65,\), got \(64,\)"):
        two.get("norm.weight", (65,))
    ours, theirs = (read_model_config(tmp_path / name) for name in ("one", "two"))
    assert ours.dimensions() == theirs.dimensions()
    for a, b in zip(
        rope_tables(ours.rope, 64, 300), rope_tables(theirs.rope, 64, 300), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_halves_of_a_training_checkpoint_are_joined(tmp_path: Path) -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    name = "embed_tokens.embedding"
    write_safetensors(
        tmp_path / "model.safetensors",
        {f"{name}_trainable.weight": table[3:], f"{name}_frozen.weight": table[:3]},
    )
    joined = MappedCheckpoint(tmp_path).get("embed_tokens.weight", (4, 3))
    np.testing.assert_array_equal(joined.values, table)


def test_conversions_round_to_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -3.0e38], np.float32)
    np.testing.assert_array_equal(convert(values, "f32", "bf16"), to_bfloat16_bits(values))
    np.testing.assert_array_equal(
        to_float32(convert(values[:3], "f32", "bf16"), "bf16"),
        np.array([1.0, 1.0, 1.015625], np.float32),
    )
    assert convert(values, "f32", "f32") is values


def test_context_of_the_released_codec() -> None:
    assert context_frames((8, 5, 4, 2, 3)) == 10
