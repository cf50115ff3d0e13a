"""The command line over small random models: results, and every error as one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import Result

from commands import run
from higgs_rt import InvalidRequestError
from higgs_rt.cli.speak import read_file
from higgs_rt.speech import SpeechStream
from recordings import make_recording

TEXT = "The sun rises in the east."
ENDLESS = ["--temperature", "0.5", "--top-k", "2", "--seed", "1"]


@pytest.fixture(autouse=True)
def voices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HIGGS_RT_VOICES", str(tmp_path / "voices"))
    return tmp_path / "voices"


@pytest.fixture
def model(random_model: Path) -> list[str]:
    return ["--model", str(random_model), "--seed", "3"]


def one_line_error(result: Result, *culprits: str) -> None:
    assert result.exit_code == 1, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for culprit in culprits:
        assert culprit in lines[0]
    assert "[internal]" not in lines[0]


@pytest.mark.parametrize(
    ("suffix", "container"), [(".wav", "WAV"), (".flac", "FLAC"), (".ogg", "OGG")]
)
def test_speak_writes_by_extension(
    model: list[str], tmp_path: Path, suffix: str, container: str
) -> None:
    target = tmp_path / f"out{suffix}"
    result = run("speak", TEXT, "-o", target, *model)
    assert result.exit_code == 0, result.output
    with soundfile.SoundFile(target) as file:
        assert file.format == container
        assert (file.samplerate, file.channels) == (24000, 1)
        assert file.frames % 960 == 0
        assert file.frames > 0
    report = result.stderr.strip().splitlines()[-1]
    for part in (str(target), "real-time factor", "first audio after", "seed 3", "finish stop"):
        assert part in report
    assert [path.name for path in tmp_path.iterdir() if path.name != "voices"] == [target.name]


def test_raw_samples_to_standard_output(model: list[str], tmp_path: Path) -> None:
    run("speak", TEXT, "-o", tmp_path / "out.wav", *model)
    expected, _ = soundfile.read(tmp_path / "out.wav", dtype="int16")
    result = run("speak", "-", "-o", "-", *model, stdin=f"{TEXT}\n")
    assert result.exit_code == 0, result.stderr
    samples = np.frombuffer(result.stdout_bytes, "<i2")
    assert np.abs(samples.astype(int) - expected).max() <= 1
    assert "standard output: " in result.stderr


def test_streaming_to_a_file_gives_the_same(model: list[str], tmp_path: Path) -> None:
    run("speak", TEXT, "-o", tmp_path / "whole.wav", *model)
    result = run("speak", TEXT, "--stream", "-o", tmp_path / "stream.wav", *model)
    assert result.exit_code == 0
    whole, _ = soundfile.read(tmp_path / "whole.wav", dtype="int16")
    stream, _ = soundfile.read(tmp_path / "stream.wav", dtype="int16")
    assert np.abs(whole.astype(int) - stream).max() <= 1


def test_a_length_stop_is_a_warning(endless_model: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.wav"
    result = run(
        "speak", TEXT, "-o", target, "--model", endless_model, "--max-seconds", 1, *ENDLESS
    )
    assert result.exit_code == 0
    assert "finish length" in result.stderr
    assert "warning: the limit of seconds" in result.stderr


def test_voices_from_add_to_remove(
    model: list[str], recording: Path, voices: Path, tmp_path: Path
) -> None:
    chosen = model[:2]
    result = run("voices", "add", "anna", recording, "--text", "Who is it?", *chosen)
    assert result.exit_code == 0, result.stderr
    assert "added voice anna: 2.00 s, 50 frames" in result.stderr
    words = tmp_path / "words.txt"
    words.write_text("It is me.\n")
    assert run("voices", "add", "bert", recording, "--text-file", words, *chosen).exit_code == 0
    listed = run("voices", "list", *chosen).stdout
    assert "anna" in listed
    assert "It is me." in listed
    shown = run("voices", "show", "anna").stdout
    assert "8 codebooks x 50 frames" in shown
    assert "Who is it?" in shown
    for arguments in (["--voice", "anna"], ["--voice", "anna", "--voice", "bert"]):
        target = tmp_path / "out.wav"
        result = run("speak", TEXT, "-o", target, *arguments, *model)
        assert result.exit_code == 0, result.stderr
        assert target.is_file()
    one_line_error(
        run("voices", "add", "anna", recording, "--text", "x", *chosen), "[voice anna]", "exists"
    )
    again = run("voices", "add", "anna", recording, "--text", "Me.", "--force", *chosen)
    assert again.exit_code == 0
    assert run("voices", "remove", "anna").exit_code == 0
    assert [path.name for path in voices.iterdir()] == ["bert.voice.safetensors"]
    one_line_error(run("voices", "remove", "anna"), "[voice anna]")


def test_listing_survives_a_damaged_voice(model: list[str], voices: Path) -> None:
    voices.mkdir()
    (voices / "broken.voice.safetensors").write_bytes(b"rubbish")
    result = run("voices", "list", *model[:2])
    assert result.exit_code == 0
    assert "broken" in result.stdout
    one_line_error(
        run("speak", TEXT, "--voice", "broken", *model), "broken.voice.safetensors", "voice file"
    )


def test_a_reference_recording(model: list[str], recording: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.wav"
    arguments = ["--ref", recording, "--ref-text", "Who is it?"]
    result = run("speak", TEXT, "-o", target, *arguments, *model)
    assert result.exit_code == 0, result.stderr
    assert target.is_file()


def bad_reference(path: Path, fault: str) -> None:
    if fault == "silent":
        soundfile.write(path, np.zeros(24000), 24000)
    elif fault == "corrupt":
        path.write_bytes(b"RIFF" + bytes(2000))
    elif fault == "10-minute":
        soundfile.write(path, np.tile(make_recording(6.0, 8000), 100), 8000)


@pytest.mark.parametrize(
    ("fault", "message"),
    [("silent", "silent"), ("corrupt", "readable audio"), ("10-minute", "at most 60 s")],
)
def test_bad_references(model: list[str], tmp_path: Path, fault: str, message: str) -> None:
    path = tmp_path / "ref.wav"
    bad_reference(path, fault)
    speaking = run("speak", TEXT, "--ref", path, "--ref-text", "Who is it?", *model)
    one_line_error(speaking, str(path), message)
    adding = run("voices", "add", "anna", path, "--text", "Who is it?", *model[:2])
    one_line_error(adding, str(path), message)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2)])
def test_stereo_and_telephone_references_are_converted(
    model: list[str], tmp_path: Path, rate: int, channels: int
) -> None:
    path = tmp_path / "ref.wav"
    soundfile.write(path, np.tile(make_recording(1.0, rate)[:, None], channels), rate)
    result = run("voices", "add", "anna", path, "--text", "Who is it?", *model[:2])
    assert result.exit_code == 0, result.stderr
    assert "25 frames" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "culprits"),
    [
        ([""], ["[text]", "empty string"]),
        (["  "], ["[text]", "white space"]),
        (["?!"], ["[text]", "letter or digit"]),
        (["x" * 200_001], ["[text]", "200000", "200001"]),
        ([TEXT, "--voice", "nobody"], ["[voice nobody]"]),
        ([TEXT, "--ref", "RECORDING"], ["[ref_text]", "recording.wav"]),
        ([TEXT, "--ref-text", "Hi."], ["[ref_text]", "ref_audio"]),
        ([TEXT, "--ref", "absent.wav", "--ref-text", "Hi."], ["absent.wav", "no such file"]),
        ([TEXT, "--voice", "a", "--ref", "b.wav", "--ref-text", "c"], ["expected one of them"]),
        ([TEXT, "--temperature", "-1"], ["temperature", "-1"]),
        ([TEXT, "--top-k", "99"], ["top_k", "99"]),
        ([TEXT, "--top-k", "99999999999"], ["[top_k]", "99999999999"]),
        ([TEXT, "--top-p", "1.5"], ["top_p", "1.5"]),
        ([TEXT, "--max-seconds", "0"], ["[max_seconds]"]),
        ([TEXT, "--seed", "-4"], ["[seed]", "-4"]),
        ([TEXT, "--scene", " "], ["[scene]"]),
        ([TEXT, "-o", "out.mp3"], ["out.mp3", ".wav"]),
        ([TEXT, "-o", "absent/out.wav"], ["absent", "folder"]),
        ([TEXT, "-o", "/proc/out.wav"], ["/proc/out.wav"]),
        ([TEXT, "-o", "a" * 300 + ".wav"], ["aaa.wav", "too long"]),
        ([TEXT, "--device", "tpu"], ["tpu"]),
        ([TEXT, "--threads", "-1"], ["threads", "-1"]),
        ([TEXT, "--threads", "99999999999"], ["threads", "99999999999"]),
        ([TEXT, "--model", "absent"], ["absent", "model directory"]),
    ],
)
def test_errors_are_one_line_that_names_the_culprit(
    model: list[str],
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    culprits: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(recording) if one == "RECORDING" else one for one in arguments]
    # Arguments of the case come last: the last of a repeated option counts.
    one_line_error(run("speak", *model, *given), *culprits)
    assert not list(tmp_path.glob("*speech*"))


@pytest.mark.parametrize("arguments", [["speak"], ["speak", TEXT, "--top-k", "x"], ["sing"]])
def test_usage_errors_exit_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr


def test_unexpected_errors_are_one_line_too(
    model: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(SpeechStream, "next", fail)
    result = run("speak", TEXT, "-o", tmp_path / "out.wav", *model)
    assert result.exit_code == 1
    assert "[internal] ZeroDivisionError: by zero" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_info(model: list[str]) -> None:
    result = run("info", *model[:2], "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["model"]["num_codebooks"] == 8
    assert facts["model"]["samples_per_frame"] == 960
    assert "cpu" in facts["build"]["native"]
    plain = run("info", *model[:2])
    assert "num_parameters" in plain.stdout
    assert run("--version").stdout.startswith("higgs-rt ")


def test_evaluate_speaks_listens_and_counts(
    model: list[str], recording: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pocketsphinx")
    lines = tmp_path / "lines.txt"
    lines.write_text("The old man.\nA small house.\n")
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    for name in ("1.wav", "2.wav"):
        (recorded / name).write_bytes(recording.read_bytes())
    run("voices", "add", "anna", recording, "--text", "Who is it?", *model[:2])
    result = run(
        *("evaluate", "wer", lines, "--voice", "anna", "--wav-dir", recorded, "--json", "-"),
        *("--save", tmp_path / "saved", "--model", model[1]),
    )
    assert result.exit_code == 0, result.stderr
    systems = {one["system"]: one for one in json.loads(result.stdout)["systems"]}
    assert set(systems) == {"anna", str(recorded)}
    assert systems["anna"]["score"]["words"] == 6
    assert [line["finish"] for line in systems["anna"]["lines"]] == ["stop", "stop"]
    assert sorted(path.name for path in (tmp_path / "saved" / "anna").iterdir()) == [
        "0001.wav",
        "0002.wav",
    ]
    table = run("evaluate", "wer", lines, "--model", model[1])
    assert "WER" in table.stdout
    assert "no voice" in table.stdout


@pytest.mark.parametrize(
    ("content", "arguments", "culprits"),
    [
        ("", [], ["lines.txt", "expected lines"]),
        ("The blorptangle.\n", [], ["dictionary", "blorptangle"]),
        ("The blorptangle.\n", ["--skip-unknown"], ["[--skip-unknown]"]),
        ("A house.\n", ["--recogniser", "whisper"], ["[recogniser]", "whisper"]),
        ("A house.\n", ["--no-speak"], ["[--no-speak]", "--wav-dir"]),
        ("A house.\n", ["--wav-dir", "."], ["expected 1 recordings"]),
    ],
)
def test_evaluate_errors(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    arguments: list[str],
    culprits: list[str],
) -> None:
    pytest.importorskip("pocketsphinx")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines.txt").write_text(content)
    result = run("evaluate", "wer", "lines.txt", *arguments)
    assert result.exit_code == 1
    for culprit in culprits:
        assert culprit in result.stderr.strip().splitlines()[-1]


def test_a_file_is_spoken_as_it_is_read(model: list[str], tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("It is 5. So it is. " * 40, encoding="utf-8")
    out = tmp_path / "out.flac"
    result = run("speak", "--file", text, "-o", out, *model)
    assert result.exit_code == 0, result.stderr
    assert out.is_file()
    missing = run("speak", "--file", tmp_path / "absent.txt", "-o", out, *model)
    assert missing.exit_code == 1
    assert "absent.txt" in missing.stderr
    both = run("speak", "Hi.", "--file", text, *model)
    assert both.exit_code == 2
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 ")
    wrong = run("speak", "--file", tmp_path / "latin.txt", "-o", out, *model)
    assert wrong.exit_code == 1
    assert "UTF-8" in wrong.stderr
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_file_that_is_broken_further_on_is_an_error(model: list[str], tmp_path: Path) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "out.wav"
    begin = "Sé it is.\r\n".encode() * 400
    text.write_bytes(begin + b"And caf\xe9 it is. " + b"So it is. " * 600)
    said = ["--max-seconds", "9999", *model]
    result = run("speak", "--file", text, "-o", out, *said)
    one_line_error(result, "text.txt", "UTF-8", f"byte {len(begin) + 7}")
    assert not out.exists()


def test_text_files_are_read_as_text(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    written = "Zürich — 東京.\r\n\r\nSo.\rYes.\n" * 700
    text.write_bytes(written.encode())
    assert "".join(read_file(text)) == written.replace("\r\n", "\n").replace("\r", "\n")
    text.write_bytes(b"So it is. \xe6\x9d")
    with pytest.raises(InvalidRequestError, match=r"unexpected end of data at byte 10"):
        list(read_file(text))


def test_serve_says_what_is_wrong(
    model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi")
    keys = tmp_path / "keys.txt"
    one_line_error(run("serve", "--api-key-file", keys, *model[:2]), "keys.txt")
    keys.write_text("\n")
    one_line_error(run("serve", "--api-key-file", keys, *model[:2]), "keys.txt", "at least one")
    one_line_error(run("serve", "--model", tmp_path / "absent"), "absent")
    assert run("serve", "--port", "70000").exit_code == 2
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    one_line_error(run("serve", *model[:2]), "higgs-rt[serve]")


def test_keys_come_from_file_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from higgs_rt.cli.serve import _keys

    keys = tmp_path / "keys.txt"
    keys.write_text("one\ntwo\n")
    monkeypatch.setenv("HIGGS_RT_API_KEYS", "three,four")
    assert _keys(keys) == ("three", "four", "one", "two")
    monkeypatch.delenv("HIGGS_RT_API_KEYS")
    assert _keys(None) == ()
