"""Real input through the whole native path: recordings to voices, sentences to speech to words.

The demo model must speak, stop by itself, and be understood: the recogniser gets less than one word
in four wrong with each voice. The voices that it learned from (flite's) are measured beside it.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from higgs_rt import Runtime
from higgs_rt.cli.app import app
from higgs_rt.evaluation import (
    SystemResult,
    make_recogniser,
    read_lines,
    read_recordings,
    score_system,
    speak_lines,
    spoken_words,
)
from higgs_rt.evaluation.recognisers import Recogniser
from higgs_rt.voices import VoiceStore

pytestmark = pytest.mark.speech

VOICES = ("slt", "rms", "awb", "kal16")
STRETCH = {"slt": 1.15, "rms": 1.0, "awb": 1.2, "kal16": 1.3}  # of the teacher, as it was learned
SENTENCES = Path(__file__).resolve().parent.parent / "data" / "sentences.txt"
NUM_SENTENCES = 50
HIGHEST_WER = 0.25


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    lines = read_lines(SENTENCES)[:NUM_SENTENCES]
    assert len(lines) == NUM_SENTENCES
    return lines


@pytest.fixture(scope="module")
def recogniser(sentences: list[str]) -> Recogniser:
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("jiwer")
    return make_recogniser(
        "pocketsphinx", {word for line in sentences for word in spoken_words(line)}
    )


@pytest.fixture(scope="module")
def folder(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four reference recordings, added as voices by the command line."""
    folder = tmp_path_factory.mktemp("voices")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIGGS_RT_VOICES", str(folder))
        for name in VOICES:
            recording = next((demo_model / "references").glob(f"{name}.[fw]*"))
            run("voices", "add", name, recording, "--text-file", recording.with_suffix(".txt"))
    return folder


@pytest.fixture(scope="module")
def results(folder: Path, sentences: list[str], recogniser: Recogniser) -> dict[str, SystemResult]:
    """Every voice speaks every sentence, eight at a time."""
    found = {}
    with Runtime.load(voices=folder) as runtime:
        begin = time.monotonic()
        for name in VOICES:
            spoken = speak_lines(runtime, sentences, voice=name, seed=0, top_k=50)
            found[name] = score_system(name, sentences, spoken, recogniser)
        passed = time.monotonic() - begin
    seconds = sum(result.seconds for result in found.values())
    print(f"\n{seconds:.1f} s of speech, made and recognised in {passed:.1f} s")
    return found


def show(results: dict[str, SystemResult]) -> None:
    for name, result in results.items():
        score = result.score
        print(
            f"{name:>14}: WER {score.wer:.3f} over {score.words} words of {len(result.lines)} "
            f"lines (sub {score.substitutions}, del {score.deletions}, ins {score.insertions}), "
            f"{result.seconds:.1f} s, length stops {result.num_length_stops}"
        )


def test_added_voices_equal_the_packaged_ones(folder: Path, demo_model: Path) -> None:
    packaged = VoiceStore(demo_model / "voices", packaged=None)
    assert packaged.names() == sorted(VOICES)
    for name in VOICES:
        added = VoiceStore(folder, codec_dir=demo_model / "codec", packaged=None).load(name)
        assert added.transcript == packaged.load(name).transcript
        # Encoding is floating point: another machine may decide a few codes differently.
        assert np.mean(added.codes == packaged.load(name).codes) > 0.99


def test_every_sentence_ends_by_itself(results: dict[str, SystemResult]) -> None:
    lines = [line for result in results.values() for line in result.lines]
    assert len(lines) == NUM_SENTENCES * len(VOICES)
    assert [line.text for line in lines if line.finish != "stop"] == []
    for line in lines:
        assert 0.2 < line.seconds < 5 + len(line.text) * 0.2, line


def test_every_voice_is_understood(results: dict[str, SystemResult]) -> None:
    print()
    show(results)
    for result in results.values():
        assert result.score.words == sum(len(spoken_words(line.text)) for line in result.lines)
        assert result.score.wer < HIGHEST_WER, result.system


def test_the_word_error_rate_of_the_teacher(
    sentences: list[str], recogniser: Recogniser, tmp_path: Path
) -> None:
    if shutil.which("flite") is None:
        pytest.skip("flite, the teacher, is not installed")
    teacher = {}
    for index, voice in enumerate(VOICES):
        lines = sentences[index :: len(VOICES)]
        (tmp_path / voice).mkdir()
        for number, line in enumerate(lines):
            target = tmp_path / voice / f"{number:02d}.wav"
            pace = f"duration_stretch={STRETCH[voice]}"
            flite: list[str | Path] = ["flite", "-voice", voice, "--setf", pace]
            flite += ["-t", line, "-o", target]
            subprocess.run(flite, check=True)
        spoken = read_recordings(tmp_path / voice, len(lines))
        name = f"flite {voice}"
        teacher[name] = score_system(name, lines, spoken, recogniser)
    print()
    show(teacher)
    # The recogniser can tell speech: otherwise the figures of the model would mean nothing.
    assert all(result.score.wer < 0.5 for result in teacher.values())


def test_speaking_with_no_voice_and_from_the_command_line(demo_model: Path, tmp_path: Path) -> None:
    target = tmp_path / "speech.wav"
    report = run("speak", "The sun rises in the east.", "-o", target, "--seed", 1)
    print(f"\n{report.strip()}")
    assert "finish stop" in report
    samples, rate = soundfile.read(target)
    assert rate == 24000
    assert 0.5 < len(samples) / rate < 10
    assert np.abs(samples).max() > 0.01
    voiced = tmp_path / "voiced.flac"
    run("speak", "The sun rises in the east.", "-o", voiced, "--voice", "slt", "--seed", 1)
    assert soundfile.info(voiced).frames % 960 == 0
