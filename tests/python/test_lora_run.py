"""Fine-tuning runs: exact resume, skipped steps, early stop, the adapter in service (issue 7)."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from higgs_rt.checkpoint import write_random_checkpoint
from higgs_rt.checkpoint.tensors import StoredTensors
from higgs_rt.errors import CheckpointError, HiggsError
from higgs_rt.runtime import Runtime
from higgs_rt.training.lora.config import parse_config
from higgs_rt.training.lora.merge import StoredAdapter, merge
from higgs_rt.training.lora.model import add_adapters, load_base_model
from higgs_rt.training.lora.state import TrainingError
from higgs_rt.training.lora.steps import learning_rate
from higgs_rt.training.lora.trainer import Trainer

CODES = 32  # as the random model's codec
STEPS = 12


def write_data(folder: Path, count: int = 14) -> Path:
    """A prepared folder of random codes."""
    rng = np.random.default_rng(0)
    (folder / "codes").mkdir(parents=True)
    rows = []
    for number in range(count):
        codes = rng.integers(0, CODES, (8, int(rng.integers(3, 20)))).astype(np.int16)
        np.save(folder / "codes" / f"{number}.npy", codes)
        audio = {"type": "audio", "codes": f"codes/{number}.npy"}
        messages = [
            {"role": "user", "content": f"line {number}"},
            {"role": "assistant", "content": audio},
        ]
        rows.append(json.dumps({"messages": messages}))
    (folder / "samples.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def fields(model: Path, data: Path, output: Path, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "model": str(model),
        "data": str(data),
        "output": str(output),
        "dtype": "float32",
        "tensorboard": False,
        "save_every": 2,
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.1, "audio_head": True},
        "batch": {"max_positions": 160, "accumulation": 2},
        "optimizer": {"steps": STEPS, "learning_rate": 5e-3, "warmup_steps": 3},
        "validation": {"every": 5, "share": 0.2},
    }
    for name, value in changes.items():
        made[name] = {**made[name], **value} if isinstance(value, dict) else value
    return made


def losses(output: Path) -> list[str]:
    return (output / "losses.jsonl").read_text().splitlines()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small products are slower on several threads, above all where others compute too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("lora") / "data")


RUN = """
import json, sys, time
from higgs_rt.training.lora.config import parse_config
from higgs_rt.training.lora.trainer import Trainer
Trainer(parse_config(json.loads(sys.argv[1]), "test"), watch=lambda t: time.sleep(0.05)).train()
"""


def test_a_killed_run_goes_on_with_the_same_losses(
    random_model: Path, data: Path, tmp_path: Path
) -> None:
    """Killed at a random step, without warning, and begun again: losses.jsonl is the same."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    Trainer(parse_config(fields(random_model, data, whole), "test")).train()
    kill_at = random.randint(2, STEPS - 2)
    argument = json.dumps(fields(random_model, data, broken))
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, argument], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        path = broken / "losses.jsonl"
        if path.is_file() and len(path.read_text().splitlines()) >= kill_at:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < len(losses(broken)) < len(losses(whole)), "expected to kill it midway"
    Trainer(parse_config(fields(random_model, data, broken), "test")).train()
    assert losses(broken) == losses(whole), f"killed after {kill_at} lines"
    first, second = (load_file(p / "last" / "adapter_model.safetensors") for p in (whole, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)
    finished = losses(broken)
    Trainer(parse_config(fields(random_model, data, broken), "test")).train()
    assert losses(broken) == finished  # a finished run is not begun again


def test_another_configuration_does_not_resume(
    random_model: Path, data: Path, tmp_path: Path
) -> None:
    short = {"steps": 1}
    Trainer(parse_config(fields(random_model, data, tmp_path, optimizer=short), "test")).train()
    other = fields(random_model, data, tmp_path, optimizer=short, lora={"alpha": 4})
    with pytest.raises(TrainingError, match=r"state: lora\] expected .*alpha"):
        Trainer(parse_config(other, "test")).train()


def test_it_learns(random_model: Path, data: Path, tmp_path: Path) -> None:
    made = fields(
        random_model,
        data,
        tmp_path,
        optimizer={"steps": 15, "learning_rate": 2e-2},
        batch={"max_positions": 2000, "accumulation": 1},
        lora={"rank": 8, "dropout": 0.0},
    )
    Trainer(parse_config(made, "test")).train()
    rows = [json.loads(row) for row in losses(tmp_path)]
    trained = [row["loss"] for row in rows if "loss" in row]
    assert trained[-1] < trained[0] - 0.2


def test_bf16_weights_train_with_tables_in_full(
    random_model: Path, data: Path, tmp_path: Path
) -> None:
    """Adapters and full tables are fp32 beside bf16 weights; the loss is near that of fp32."""
    found = []
    for dtype in ("bfloat16", "float32"):
        made = fields(random_model, data, tmp_path / dtype, dtype=dtype)
        made["lora"].update(audio_head=True, audio_embeddings=True, dropout=0.0)
        trainer = Trainer(parse_config(made, "test"), say=lambda _: None)
        assert {p.dtype for p in trainer.stepper.parameters} == {torch.float32}
        rows = [trainer.stepper.step(number) for number in range(3)]
        held = trainer.stepper.validation_loss(trainer.validation_set)
        assert all(row is not None for row in rows)
        found.append([row.loss for row in [*rows, held] if row is not None])
    assert found[0] == pytest.approx(found[1], abs=0.05)
    assert found[0][2] < found[0][0] + 0.05


def test_losses_that_are_not_finite_are_skipped_then_refused(
    random_model: Path, data: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    made = fields(random_model, data, tmp_path, optimizer={"max_bad_steps": 2})
    trainer = Trainer(parse_config(made, "test"), say=said.append)
    before = [parameter.detach().clone() for parameter in trainer.stepper.parameters]
    with torch.no_grad():
        trainer.peft.get_base_model().model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"step 2\] expected a finite loss, got 2 steps"):
        trainer.train()
    assert any("step 1] expected a finite loss, got nan" in line for line in said)
    assert any("samples.jsonl:" in line for line in said)
    assert all(map(torch.equal, before, trainer.stepper.parameters))


def test_early_stop_keeps_the_best(random_model: Path, data: Path, tmp_path: Path) -> None:
    made = fields(
        random_model,
        data,
        tmp_path,
        optimizer={"steps": 200, "learning_rate": 3e-2},
        validation={"every": 2, "patience": 2},
    )
    progress = Trainer(parse_config(made, "test"), say=lambda _: None).train()
    assert progress.finished and progress.step == progress.best_step + 4 < 200
    assert (tmp_path / "best" / "adapter_model.safetensors").is_file()


def test_a_run_speaks_and_counts_words(random_model: Path, data: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("The green door.\nThe red door.\n")
    made = fields(
        random_model,
        data,
        tmp_path / "run",
        tensorboard=True,
        optimizer={"steps": 1},
        validation={"every": 1, "speak_every": 1, "speak_file": str(lines), "speak_lines": 1},
    )
    Trainer(parse_config(made, "test"), say=lambda _: None).train()
    spoken = list((tmp_path / "run" / "speech" / "step_000001").iterdir())
    assert [path.name for path in spoken] == ["000.wav"]
    rows = [json.loads(row) for row in losses(tmp_path / "run")]
    assert next(row["word_error_rate"] for row in rows if "word_error_rate" in row) >= 0
    assert any((tmp_path / "run" / "tensorboard").iterdir())


def test_learning_rate_follows_the_schedule(tmp_path: Path) -> None:
    config = parse_config(
        {
            "model": "m",
            "data": "d",
            "output": "o",
            "optimizer": {"steps": 110, "warmup_steps": 10, "learning_rate": 1.0},
        },
        "test",
    )
    assert [learning_rate(config, step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert learning_rate(config, 60) == pytest.approx(0.55)
    assert learning_rate(config, 110) == pytest.approx(0.1)


@pytest.fixture(scope="module", params=["transformers", "original"])
def model_and_adapter(
    request: pytest.FixtureRequest, random_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A bf16 model of either layout and an adapter of everything, with numbers that matter."""
    folder = tmp_path_factory.mktemp(request.param)
    model, adapter = folder / "model", folder / "adapter"
    write_random_checkpoint(
        model, codebook_size=CODES, layout=request.param, dtype="bfloat16", shards=2
    )
    (model / "codec").symlink_to(random_model / "codec")
    base = load_base_model(model, torch.bfloat16)
    made = fields(model, model, model, lora={"audio_embeddings": True})
    peft = add_adapters(base, parse_config(made, "test").lora)
    draw = torch.Generator().manual_seed(1)
    for parameter in peft.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=draw)
    peft.save_pretrained(str(adapter))
    return model, adapter


def columns(model: Path, adapter: Path | None = None) -> list[Any]:
    """What is spoken, as samples: greedy, and sampled by a seed."""
    with Runtime.load(model, threads=1, adapter=adapter) as runtime:
        return [
            runtime.speak("Hello.", seed=3, temperature=t, max_seconds=1.0).samples
            for t in (0.0, 0.9)
        ]


def test_merged_and_unmerged_adapters_speak_alike(
    model_and_adapter: tuple[Path, Path], tmp_path: Path
) -> None:
    model, adapter = model_and_adapter
    unmerged, base = columns(model, adapter), columns(model)
    assert not all(map(np.array_equal, unmerged, base))
    for layout in ("transformers", "original"):
        output = tmp_path / layout
        assert merge(model, adapter, output, layout=layout) == 2 * 10 + 2
        assert StoredTensors(output).is_original == (layout == "original")
        assert all(map(np.array_equal, columns(output), unmerged)), layout
    assert all(map(np.array_equal, columns(model), base))  # the adapter off: as before


def test_merging_is_what_peft_computes(model_and_adapter: tuple[Path, Path]) -> None:
    from peft import PeftModel

    model, adapter = model_and_adapter
    wide = load_base_model(model, torch.float32)
    expected = {
        name: tensor.clone()
        for name, tensor in PeftModel.from_pretrained(wide, str(adapter))
        .merge_and_unload()
        .state_dict()
        .items()
    }
    stored, ours = StoredTensors(model), StoredAdapter(adapter)
    for name in stored.names:
        merged = ours.merged(name, stored.tensor(name))
        assert merged.dtype == torch.bfloat16
        assert torch.allclose(merged.float(), expected[name], rtol=2**-8, atol=1e-6), name


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type.*LORA.*IA3"),
        ({"use_dora": True}, "use_dora"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights.*pissa_niter_4"),
        ({"rank_pattern": {"x": 3}}, "rank_pattern"),
        ({"r": 5}, "lora_A"),
    ],
)
def test_adapters_that_do_not_fit_are_named(
    model_and_adapter: tuple[Path, Path], tmp_path: Path, edit: dict[str, Any], message: str
) -> None:
    model, adapter = model_and_adapter
    config = json.loads((adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, **edit}))
    (tmp_path / "adapter_model.safetensors").symlink_to(adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        merge(model, tmp_path, tmp_path / "merged")
    with pytest.raises(HiggsError, match=message):
        Runtime.load(model, adapter=tmp_path)


def test_an_adapter_of_another_model_is_refused(
    model_and_adapter: tuple[Path, Path], tmp_path: Path
) -> None:
    model, adapter = model_and_adapter
    (tmp_path / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    tensors[name.replace("layers.0", "layers.7")] = tensors[name].clone()
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    for load in (
        lambda: merge(model, tmp_path, tmp_path / "merged"),
        lambda: Runtime.load(model, adapter=tmp_path),
    ):
        with pytest.raises(HiggsError, match=r"layers\.7\.self_attn\.q_proj"):
            load()
    with pytest.raises(HiggsError, match="expected a directory"):
        Runtime.load(model, adapter=tmp_path / "nowhere")
