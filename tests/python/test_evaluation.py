# ruff: noqa: RUF001 (typographic characters are the subject)
"""Evaluation: words, error counts, the recogniser on real speech, and what can be wrong."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from higgs_rt.audio import Audio
from higgs_rt.errors import HiggsError, InvalidRequestError
from higgs_rt.evaluation import (
    Utterance,
    make_recogniser,
    read_lines,
    read_recordings,
    score,
    score_system,
    spoken_words,
)
from higgs_rt.evaluation.recognisers import flat_unigram

pytest.importorskip("jiwer")


def test_spoken_words() -> None:
    assert spoken_words("Don’t stop -- it's 'new', OK_?") == ["don't", "stop", "it's", "new", "ok"]


@pytest.mark.parametrize(
    ("reference", "heard", "wer", "counts"),
    [
        ("a b c d", "a b c d", 0.0, (0, 0, 0)),
        ("a b c d", "a x c d", 0.25, (1, 0, 0)),
        ("a b c d", "a c d", 0.25, (0, 1, 0)),
        ("a b c d", "a b b c d", 0.25, (0, 0, 1)),
        ("a b", "", 1.0, (0, 2, 0)),
        ("a", "b c d", 3.0, (1, 0, 2)),
    ],
)
def test_score(reference: str, heard: str, wer: float, counts: tuple[int, int, int]) -> None:
    result = score([reference.split()], [heard.split()])
    assert result.wer == pytest.approx(wer)
    assert (result.substitutions, result.deletions, result.insertions) == counts
    assert result.words == len(reference.split())


def test_the_score_of_lines_weighs_words_not_lines() -> None:
    assert score([["a"], ["b", "c", "d"]], [["x"], ["b", "c", "d"]]).wer == pytest.approx(0.25)


class Scripted:
    """A recogniser that hears what the first sample says."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words

    def transcribe(self, samples: NDArray[np.float32], sample_rate: int) -> list[str]:
        return [self.words[int(samples[0])]]


def test_score_system() -> None:
    utterances = [
        Utterance(Audio(np.full(24000, n, np.float32), 24000), finish)
        for n, finish in enumerate(["stop", "length"])
    ]
    result = score_system("anna", ["Yes!", "No."], utterances, Scripted(["yes", "yes"]))
    assert [line.wer for line in result.lines] == [0.0, 1.0]
    assert result.score.wer == pytest.approx(0.5)
    assert result.seconds == pytest.approx(2.0)
    assert result.num_length_stops == 1
    assert result.to_json()["score"]["substitutions"] == 1


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("One.\n\n  Two. \n")
    assert read_lines(path) == ["One.", "Two."]
    path.write_text("One.\n...\n")
    with pytest.raises(InvalidRequestError, match=r"line 2\] expected words"):
        read_lines(path)
    path.write_text("\n")
    with pytest.raises(InvalidRequestError, match="expected lines of text"):
        read_lines(path)
    with pytest.raises(InvalidRequestError, match=r"absent\.txt"):
        read_lines(tmp_path / "absent.txt")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequestError, match=r"lines\.txt"):
        read_lines(path)


def test_recordings_must_match_the_lines(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidRequestError, match="expected 1 recordings, one for each line, got 0"
    ):
        read_recordings(tmp_path, 1)
    soundfile.write(tmp_path / "b.wav", np.zeros(160), 16000)
    soundfile.write(tmp_path / "a.flac", np.zeros(320), 16000)
    assert [len(one.audio.samples) for one in read_recordings(tmp_path, 2)] == [320, 160]
    with pytest.raises(InvalidRequestError, match="expected a folder"):
        read_recordings(tmp_path / "absent", 1)


def test_flat_unigram() -> None:
    model = flat_unigram(["b", "a", "b"])
    assert "ngram 1=4" in model
    assert model.count("-0.477121") == 3  # log10(1/3): a, b and the end


def test_unknown_recognisers_and_words_are_named() -> None:
    with pytest.raises(InvalidRequestError, match=r"\[recogniser\].*'whisper'"):
        make_recogniser("whisper", ["a"])
    with pytest.raises(InvalidRequestError, match=r"\[recogniser\].*'transformers:'"):
        make_recogniser("transformers:", ["a"])
    pytest.importorskip("pocketsphinx")
    with pytest.raises(InvalidRequestError, match="of its dictionary, got blorptangle"):
        make_recogniser("pocketsphinx", ["blorptangle", "house"])


def test_an_unknown_transformers_model_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HiggsError, match=r"\[recogniser transformers:.*absent\]"):
        make_recogniser(f"transformers:{tmp_path / 'absent'}", ["a"])


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite makes the recording")
def test_pocketsphinx_hears_real_speech(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    text = "The old man opens the door."
    path = tmp_path / "speech.wav"
    subprocess.run(["flite", "-voice", "rms", "-t", text, "-o", path], check=True)
    others = ["cat", "winter", "under", "garden", "small", "letter"]
    recogniser = make_recogniser("pocketsphinx", [*spoken_words(text), *others])
    samples, rate = soundfile.read(path, dtype="float32")
    first = recogniser.transcribe(samples, rate)
    assert first == spoken_words(text)
    assert recogniser.transcribe(samples, rate) == first
    assert recogniser.transcribe(np.zeros(0, np.float32), 24000) == []
