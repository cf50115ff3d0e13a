"""Fine-tuning: samples, converters, preparation, and what becomes of bad data (issue 7, 6)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from higgs_rt.cli.app import app
from higgs_rt.errors import HiggsError
from higgs_rt.prompt import Convention, Reference, TextTokenizer
from higgs_rt.prompt.layouts import speech_messages
from higgs_rt.training.lora.config import TrainingConfigError, parse_config, template
from higgs_rt.training.lora.converters import rows_of
from higgs_rt.training.lora.data import load_folders, plan_epoch, split
from higgs_rt.training.lora.examples import StreamIds
from higgs_rt.training.lora.prepare import PrepareOptions, Report, parse_all, prepare
from higgs_rt.training.lora.samples import SampleError, parse_sample, read_samples

GOOD: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Generate audio following instruction."},
        {"role": "user", "content": [{"type": "text", "text": "Hello."}]},
        {"role": "assistant", "content": {"type": "audio", "audio_url": "a.wav"}},
    ],
    "start_index": 0,
    "speaker": "anna",
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """GOOD with the field at `path` ("messages.1.role") replaced; None removes it."""
    sample: Any = json.loads(json.dumps(GOOD))
    *parents, last = path.split(".")
    place = sample
    for name in parents:
        place = place[int(name)] if isinstance(place, list) else place[name]
    if value is None:
        del place[int(last) if isinstance(place, list) else last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return dict(sample)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("messages", [], "f:1: messages\\] expected a list of messages"),
        (
            "messages.1.role",
            "human",
            r"messages\[1\].role\] expected one of system, .* got \"human\"",
        ),
        ("messages.1.content", "  ", r"messages\[1\].content.text\] expected words"),
        ("messages.1.content.0.text", 3, r"content\[0\].text\] expected words, got 3"),
        ("messages.1.content.0.type", "video", "expected text or audio"),
        ("messages.1.content.0.size", 3, r"expected fields \['text', 'type'\], got \['size'\]"),
        ("messages.2.content.audio_url", "", "audio_url\\] expected a file"),
        ("messages.2", None, "expected an assistant message"),
        ("messages.0.role", "user", "expected an answer between two user messages"),
        ("messages.2.role", "system", r"messages\[2\].role\] expected system only first"),
        ("messages.1.content", "<|eot_id|>", "got the control token"),
        ("start_index", 3, "start_index\\] expected 0..2, got 3"),
        ("speaker", 3, "speaker\\] expected a string, got 3"),
        ("lang", "en", r"expected fields .*, got \['lang'\]"),
        ("messages", None, "messages\\] expected a value, got none"),
    ],
)
def test_a_malformed_sample_is_named_by_field(path: str, value: Any, message: str) -> None:
    parse_sample(GOOD, "f:1")
    with pytest.raises(SampleError, match=message):
        parse_sample(changed(path, value), "f:1")


def test_all_malformed_samples_are_named_together(tmp_path: Path) -> None:
    file = tmp_path / "s.jsonl"
    rows = [GOOD, changed("speaker", 1), GOOD, changed("lang", "en")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SampleError, match=r"s.jsonl:2: speaker.*s.jsonl:4\] expected fields"):
        parse_all(rows_of("chatml", file))
    file.write_text(json.dumps(GOOD) + "\n{\n")
    with pytest.raises(SampleError, match=r"s.jsonl:2\] expected a JSON object"):
        list(read_samples(file))


def record(path: Path, seconds: float = 0.5, rate: int = 24000, gain: float = 0.1) -> None:
    """A tone whose pitch comes from its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * rate)) / rate
    tone = np.clip(gain * np.sin(2 * np.pi * (200 + 7 * len(path.stem)) * time), -1, 1)
    soundfile.write(path, tone.astype(np.float32), rate)


def rows(kind: str, source: Path, **options: Any) -> list[Any]:
    return parse_all(rows_of(kind, source, **options))


def test_converters_agree(tmp_path: Path) -> None:
    """The same two utterances in every format become the same conversations."""
    for name in ("a", "b"):
        record(tmp_path / "folder" / f"{name}.wav")
        (tmp_path / "folder" / f"{name}.txt").write_text(f"Words {name}.\n")
        record(tmp_path / "lj" / "wavs" / f"{name}.wav")
    (tmp_path / "lj" / "metadata.csv").write_text("a|W. a.|Words a.\nb|Words b.|\n")
    (tmp_path / "cv").mkdir()
    table = "client_id\tpath\tsentence\nx\ta.mp3\tWords a.\nx\tb.mp3\tWords b.\n"
    (tmp_path / "cv" / "train.tsv").write_text(table)
    swift = [
        {
            "messages": [
                {"role": "system", "content": "Generate audio following instruction."},
                {"role": "user", "content": f"Words {name}."},
                {"role": "assistant", "content": "<audio>"},
            ],
            "audios": [f"{name}.wav"],
        }
        for name in ("a", "b")
    ]
    (tmp_path / "swift.jsonl").write_text("".join(json.dumps(row) + "\n" for row in swift))
    found = {
        "folder": rows("folder", tmp_path / "folder"),
        "ljspeech": rows("ljspeech", tmp_path / "lj"),
        "common-voice": rows("common-voice", tmp_path / "cv" / "train.tsv"),
        "ms-swift": rows("ms-swift", tmp_path / "swift.jsonl"),
    }
    for kind, samples in found.items():
        assert len(samples) == 2, kind
        for sample, name in zip(samples, ("a", "b"), strict=True):
            roles = [message.role for message in sample.messages]
            assert roles == ["system", "user", "assistant"], kind
            assert sample.messages[1].parts == (f"Words {name}.",), kind
            assert Path(sample.audio()[0].audio_url).stem == name, kind
    assert found["common-voice"][0].speaker == "x"


def test_a_reference_comes_before_the_sample(tmp_path: Path) -> None:
    for speaker, name in (("anna", "a"), ("anna", "b"), ("bob", "c")):
        record(tmp_path / speaker / f"{name}.wav")
        (tmp_path / speaker / f"{name}.txt").write_text(f"Words {name}.")
    first, second, alone = rows("folder", tmp_path, reference=True)
    assert [m.role for m in first.messages] == ["user", "assistant"] * 2
    assert first.start_index == second.start_index == 2
    assert first.audio()[0].audio_url == second.audio()[1].audio_url
    assert [m.role for m in alone.messages] == ["system", "user", "assistant"]
    assert (first.speaker, alone.speaker) == ("anna", "bob")


@pytest.mark.parametrize("convention", ["original", "transformers"])
@pytest.mark.parametrize("scene", [None, "A quiet room."])
@pytest.mark.parametrize("reference", [False, True])
def test_samples_are_the_prompts_of_the_runtime(
    tmp_path: Path, convention: Convention, scene: str | None, reference: bool
) -> None:
    """Prepared and trained messages are those of a request, in both conventions."""
    for name in ("a", "b"):
        record(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.txt").write_text(f"Words {name}.")
    found = rows("folder", tmp_path, scene=scene, reference=reference, convention=convention)
    codes = np.zeros((8, 3), np.int32)
    for sample, name, other in zip(found, ("a", "b"), ("b", "a"), strict=True):
        speakers = [Reference(codes, f"Words {other}.")] if reference else []
        expected = speech_messages(
            f"Words {name}.", speakers=speakers, scene=scene, convention=convention
        )
        given = [
            (one.role, tuple(p for p in one.parts if isinstance(p, str)))
            for one in sample.messages[: sample.start_index + 1]
        ]
        assert given == [
            (one.role, tuple(p for p in one.parts if isinstance(p, str))) for one in expected
        ]


def test_samples_of_the_other_convention_are_refused(tmp_path: Path, random_model: Path) -> None:
    for name in ("a", "b"):
        record(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.txt").write_text(f"Words {name}.")
    samples = rows("folder", tmp_path, reference=True)
    out = tmp_path / "out"
    prepare(samples, out, random_model / "codec", PrepareOptions(), progress=False)
    with pytest.raises(HiggsError, match=r"expected a system message first.*prepare --convention"):
        load_folders(
            [out],
            TextTokenizer.load(random_model),
            StreamIds(8, 34, 32, 33),
            convention="transformers",
            max_length=2048,
        )


@pytest.mark.parametrize(
    ("kind", "file", "text", "message"),
    [
        ("ljspeech", "metadata.csv", "a\n", r"metadata.csv:1\] expected id\|text\|text, got 1"),
        ("common-voice", "x.tsv", "path\tup\n", r"x.tsv:1\] expected columns path, sentence"),
        ("ms-swift", "x.jsonl", '{"messages": 3}', r"x.jsonl:1: messages\] expected a list"),
        (
            "ms-swift",
            "x.jsonl",
            '{"messages": [{"role": "user", "content": "<audio>"}], "audios": []}',
            r"audios\] expected 1 files for the <audio> marks, got 0",
        ),
        ("folder", "x", "", "expected a folder of recordings"),
        ("csv", "x", "", "expected one of chatml, ms-swift, folder"),
    ],
)
def test_converters_name_faults(
    tmp_path: Path, kind: str, file: str, text: str, message: str
) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(SampleError, match=message):
        rows(kind, tmp_path / file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good recordings, a clipped one, and one with far too many words."""
    words = {
        "a": "Hello there.",
        "bb": "How are you?",
        "ccc": "Fine.",
        "dddd": "Loud.",
        "eeeee": "Too many words. " * 8,
    }
    for name, text in words.items():
        record(tmp_path / "wavs" / f"{name}.wav", gain=4.0 if name == "dddd" else 0.1)
        (tmp_path / "wavs" / f"{name}.txt").write_text(text)
    return tmp_path


def prepared(folder: Path, model: Path, **options: Any) -> Report:
    samples = rows("folder", folder / "wavs")
    settings = PrepareOptions(**options)
    return prepare(samples, folder / "out", model / "codec", settings, progress=False)


def test_preparation_reports_and_resumes(folder: Path, random_model: Path) -> None:
    report = prepared(folder, random_model)
    assert (report.samples, report.clips, report.left_out) == (5, 5, [])
    assert report.hours == pytest.approx(5 * 0.5 / 3600)
    assert [Path(name).stem for name in report.clipped] == ["dddd"]
    assert len(report.ill_fitting) == 1 and "eeeee" in report.ill_fitting[0]
    codes = sorted((folder / "out" / "codes").iterdir())
    assert len(codes) == 5
    codes[0].unlink()
    before = {path.name: path.stat().st_mtime_ns for path in codes[1:]}
    prepared(folder, random_model)
    again = {path.name: path.stat().st_mtime_ns for path in (folder / "out" / "codes").iterdir()}
    assert again.keys() == before.keys() | {codes[0].name}  # only what was missing is made
    assert all(again[name] == when for name, when in before.items())
    loaded = load_folders(
        [folder / "out"],
        TextTokenizer.load(random_model),
        StreamIds(8, 34, 32, 33),
        convention="original",
        max_length=2048,
    )
    assert len(loaded.examples) == 5
    assert loaded.texts[0] == "Hello there."
    assert len(loaded.examples[0].columns) == 13 + 9  # 0.5 s are 12.5 frames


def test_bad_recordings_are_named_counted_and_left_out(folder: Path, random_model: Path) -> None:
    record(folder / "wavs" / "slow.wav", rate=4000)
    record(folder / "wavs" / "mute.wav", gain=0.0)
    record(folder / "wavs" / "long.wav", seconds=3)
    (folder / "wavs" / "bad.wav").write_bytes(b"no audio")
    for name in ("slow", "mute", "long", "bad"):
        (folder / "wavs" / f"{name}.txt").write_text("Words.")
    with pytest.raises(HiggsError, match=r"expected at most 5% of the samples.*got 4 of 9"):
        prepared(folder, random_model, max_seconds=2.0)
    report = prepared(folder, random_model, max_seconds=2.0, max_bad=0.5)
    assert report.samples == 5 and len(report.left_out) == 4
    faults = "\n".join(report.left_out)
    for part in ("slow.txt: .*4000 Hz", "silent", "bad.txt: .*readable audio", "long.txt: .*2"):
        import re

        assert re.search(part, faults), (part, faults)
    samples = rows("folder", folder / "wavs")
    (folder / "wavs" / "a.wav").unlink()
    report = prepare(
        samples,
        folder / "out",
        random_model / "codec",
        PrepareOptions(max_seconds=2.0, max_bad=0.9),
        progress=False,
    )
    assert any("a.wav" in fault and "no such file" in fault for fault in report.left_out)


def test_the_command_prepares(folder: Path, random_model: Path) -> None:
    source, output = str(folder / "wavs"), str(folder / "out")
    command = ["train", "prepare", source, "-o", output, "--model", str(random_model)]
    result = CliRunner().invoke(app, [*command, "--speaker", "anna"])
    assert result.exit_code == 0, result.output
    rows = [json.loads(row) for row in (folder / "out" / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 5 and {row["speaker"] for row in rows} == {"anna"}
    missing = CliRunner().invoke(app, ["train", "prepare", "nowhere", "-o", output])
    assert missing.exit_code == 1


def test_codes_of_another_codec_are_refused(folder: Path, random_model: Path) -> None:
    prepared(folder, random_model)
    with pytest.raises(HiggsError, match=r"samples.jsonl:1\] expected 8 codebooks of codes 0..1"):
        load_folders(
            [folder / "out"],
            TextTokenizer.load(random_model),
            StreamIds(8, 4, 2, 3),
            convention="original",
            max_length=2048,
        )


def test_batches_hold_likes_and_fit() -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(20, 400, 300)]
    plan = plan_epoch(lengths, seed=1, epoch=0, max_positions=1000, max_rows=8)
    assert sorted(index for batch in plan for index in batch) == list(range(300))
    padded = 0
    for batch in plan:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or longest * len(batch) <= 1000
        assert len(batch) <= 8
        padded += longest * len(batch)
    assert padded < 1.2 * sum(lengths)
    arguments = {"seed": 1, "max_positions": 1000, "max_rows": 8}
    assert plan == plan_epoch(lengths, epoch=0, **arguments)
    assert plan != plan_epoch(lengths, epoch=1, **arguments)
    chosen, held = split(300, 0.05, 3)
    assert len(held) == 15 and sorted(chosen + held) == list(range(300))


BASE: dict[str, Any] = {"model": "m", "data": "d", "output": "o"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "m", "data": "d"}, r"c.yaml: output\] expected a value, got none"),
        ({**BASE, "lora": {"rnk": 8}}, r"c.yaml: lora\] expected fields .*got \['rnk'\]"),
        ({**BASE, "lora": {"rank": 0}}, r"lora.rank\] expected 1..1024, got 0"),
        ({**BASE, "lora": {"rank": 8.5}}, r"lora.rank\] expected an integer, got 8.5"),
        ({**BASE, "lora": {"mlp": "some"}}, r"lora.mlp\] expected one of text, audio, both, none"),
        ({**BASE, "lora": {"attention": "yes"}}, r"lora.attention\] expected true or false"),
        ({**BASE, "lora": {"attention": False, "mlp": "none"}}, "expected something to train"),
        ({**BASE, "optimizer": {"learning_rate": "x"}}, "learning_rate\\] expected a number"),
        ({**BASE, "optimizer": {"steps": 0}}, r"optimizer.steps\] expected 1 or more, got 0"),
        ({**BASE, "objective": {"codebook_weights": [1, -1]}}, "expected none negative"),
        ({**BASE, "validation": {"speak_every": 5}}, "speak_file\\] expected lines"),
        ({**BASE, "data": []}, r"data\] expected a folder or more, got none"),
        ([], r"\[c.yaml\] expected fields, got \[\]"),
    ],
)
def test_configuration_faults_are_named(fields: Any, message: str) -> None:
    with pytest.raises(TrainingConfigError, match=message):
        parse_config(fields, "c.yaml")


def test_the_template_is_a_configuration() -> None:
    import yaml

    filled = template().replace("# required", '"x"')
    assert parse_config(yaml.safe_load(filled), "template") == parse_config(
        {"model": "x", "data": "x", "output": "x"}, "c"
    )
