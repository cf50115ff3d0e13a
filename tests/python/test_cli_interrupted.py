"""The command line when Ctrl-C, a closed pipe or a full disk ends it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from commands import run
from higgs_rt.cli import main
from higgs_rt.speech import SpeechStream

TEXT = "The sun rises in the east."
ENDLESS = ["--temperature", "0.5", "--top-k", "2", "--seed", "1"]


@pytest.fixture(autouse=True)
def voices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIGGS_RT_VOICES", str(tmp_path / "voices"))


@pytest.fixture
def model(random_model: Path) -> list[str]:
    return ["--model", str(random_model), "--seed", "3"]


def interrupt_after(monkeypatch: pytest.MonkeyPatch, chunks: int) -> None:
    """Ctrl-C strikes while the request waits for its next chunk."""
    original = SpeechStream.next
    left = [chunks]

    def next_or_interrupt(self: SpeechStream, timeout: float | None = None) -> object:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return original(self, None)

    monkeypatch.setattr(SpeechStream, "next", next_or_interrupt)


def test_ctrl_c_leaves_no_file(
    endless_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, 0)
    target = tmp_path / "out.wav"
    target.write_bytes(b"as before")
    result = run("speak", TEXT, "-o", target, "--model", endless_model, *ENDLESS)
    assert result.exit_code == 130
    assert result.stderr.strip() == "interrupted"
    assert target.read_bytes() == b"as before"
    assert [path.name for path in tmp_path.iterdir()] == ["out.wav"]


def test_ctrl_c_while_streaming_keeps_what_is_made(
    endless_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, 2)
    target = tmp_path / "out.wav"
    arguments = ["--model", endless_model, "--stream", *ENDLESS]
    result = run("speak", TEXT, "-o", target, *arguments)
    assert result.exit_code == 130
    assert "interrupted; " in result.stderr
    samples, _ = soundfile.read(target)
    assert len(samples) == 960 * (8 + 16)
    assert [path.name for path in tmp_path.iterdir()] == ["out.wav"]


def test_ctrl_c_inside_an_import(model: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Python turns what `__set_name__` raises into a RuntimeError of its own."""

    def interrupted(*_: object) -> None:
        raise RuntimeError("__set_name__") from KeyboardInterrupt()

    monkeypatch.setattr("higgs_rt.cli.speak.open_output", interrupted)
    result = run("speak", TEXT, *model)
    assert (result.exit_code, result.stderr.strip()) == (130, "interrupted")

    monkeypatch.setattr("higgs_rt.cli.app.app", interrupted)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_real_ctrl_c(endless_model: Path) -> None:
    arguments = ["speak", TEXT, "-o", "-", "--model", endless_model, *ENDLESS]
    command = [sys.executable, "-m", "higgs_rt", *map(str, arguments), "--max-seconds", "150"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert len(process.stdout.read(2000)) == 2000  # it speaks
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors
    assert b"interrupted" in errors


def test_a_closed_pipe(endless_model: Path) -> None:
    arguments = ["speak", TEXT, "-o", "-", "--model", endless_model, *ENDLESS]
    command = [sys.executable, "-m", "higgs_rt", *map(str, arguments), "--max-seconds", "150"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(100)
        process.stdout.close()
        errors = process.stderr.read().decode()
        process.wait(timeout=30)
    assert process.returncode == 1
    assert errors.strip().splitlines()[-1].startswith("[standard output] expected a reader")
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a full disk")
def test_a_full_disk(model: list[str]) -> None:
    command = [sys.executable, "-m", "higgs_rt", "speak", TEXT, "-o", "-", *model]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "standard output" in done.stderr
    assert "Traceback" not in done.stderr
