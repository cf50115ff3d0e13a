"""Word error rate of a long text against the same sentences one by one (issue 6, measure 3).

    python benchmarks/long_text_wer.py --words 2000 [--voice slt] [--dialogue]

The text is the sentences of tests/data/sentences.txt, over and over; each pass has its own seed
when they are spoken one by one. A dialogue gives the sentences to the packaged voices in turn.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from higgs_rt import LengthStopWarning, Runtime, Speech
from higgs_rt.evaluation import make_recogniser, read_lines, spoken_words
from higgs_rt.evaluation.recognisers import Recogniser
from higgs_rt.evaluation.wer import score
from higgs_rt.prompt import split_turns

SENTENCES = Path(__file__).resolve().parent.parent / "tests" / "data" / "sentences.txt"
OTHERS = (
    "Every morning we open the window and look at the garden.",
    "The ship carries paper and water to the city.",
    "He was cold and hungry when the winter came.",
    "Nobody knows why the small dog waits at the door.",
    "She writes a letter to her brother in the evening.",
    "Two horses run over the hill behind the river.",
    "I remember the song that my teacher loved.",
    "Give the child some bread and a blue book.",
)
VOICES = ("slt", "rms", "awb", "kal16")


def main() -> None:
    """Speak, recognise, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", type=int, default=2000)
    parser.add_argument("--voice")
    parser.add_argument("--dialogue", action="store_true")
    parser.add_argument("--context-turns", type=int)
    parser.add_argument("--max-turn-chars", type=int)
    arguments = parser.parse_args()
    lines = read_lines(SENTENCES)
    recogniser = make_recogniser(
        "pocketsphinx", {word for line in lines for word in spoken_words(line)}
    )
    said: list[str] = []
    while sum(len(line.split()) for line in said) < arguments.words:
        said.append(lines[len(said) % len(lines)])
    warnings.simplefilter("ignore", LengthStopWarning)
    with Runtime.load() as runtime:
        result = {
            "words": sum(len(line.split()) for line in said),
            "single": _single(runtime, recogniser, said, len(lines), arguments),
            "long": _long(runtime, recogniser, said, arguments),
        }
    print(json.dumps(result, indent=1))


def _voice(arguments: argparse.Namespace, index: int) -> str | None:
    return VOICES[index % 4] if arguments.dialogue else arguments.voice


def _single(
    runtime: Runtime,
    recogniser: Recogniser,
    said: list[str],
    cycle: int,
    arguments: argparse.Namespace,
) -> float:
    heard = []
    for index, line in enumerate(said):
        seed = index // cycle
        speech = runtime.speak(line, voice=_voice(arguments, index), seed=seed, top_k=50)
        heard.append(recogniser.transcribe(speech.samples, speech.sample_rate))
    return round(score([spoken_words(line) for line in said], heard).wer, 4)


def _long(
    runtime: Runtime, recogniser: Recogniser, said: list[str], arguments: argparse.Namespace
) -> dict[str, object]:
    if arguments.dialogue:
        text = "\n".join(f"[SPEAKER{index % 4}] {line}" for index, line in enumerate(said))
    else:
        text = " ".join(said)
    begin = time.monotonic()
    speech = runtime.speak(
        text,
        seed=0,
        top_k=50,
        voice=None if arguments.dialogue else arguments.voice,
        speakers=VOICES if arguments.dialogue else (),
        context_turns=arguments.context_turns,
        max_turn_chars=arguments.max_turn_chars,
    )
    passed = time.monotonic() - begin
    turns = list(split_turns(text, arguments.max_turn_chars or runtime.settings.max_turn_chars))
    parts = _parts(speech)
    assert len(parts) == len(turns)
    heard = [recogniser.transcribe(part, speech.sample_rate) for part in parts]
    voices = {}
    if arguments.dialogue:
        found = _voices(runtime, parts)
        right = sum(turn.speaker == one for turn, one in zip(turns, found, strict=True))
        voices = {"right_voice": round(right / len(turns), 4)}
    return {
        **voices,
        "wer": round(score([spoken_words(turn.text) for turn in turns], heard).wer, 4),
        "turns": len(turns),
        "seconds": round(speech.seconds, 1),
        "took": round(passed, 1),
        "finish": {
            reason: sum(turn.finish == reason for turn in speech.turns)
            for reason in {turn.finish for turn in speech.turns}
        },
    }


def _voices(runtime: Runtime, parts: list[NDArray[np.float32]]) -> list[int]:
    """The packaged voice that each part sounds most like.

    A voice is the mean and the spread of its log spectrum over eight other sentences, spoken one
    by one; parts are compared with equal weight of each band.
    """
    known = [
        np.mean(
            [_sound(runtime.speak(line, voice=name, seed=9).samples) for line in OTHERS], axis=0
        )
        for name in VOICES
    ]
    scale = np.std(known, axis=0) + 1e-3
    return [
        int(np.argmin([np.abs((_sound(part) - one) / scale).mean() for one in known]))
        for part in parts
    ]


def _sound(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean and spread [2 * bands] of the log spectrum of the voiced frames, level removed."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 1024)[::256]
    power = np.abs(np.fft.rfft(frames * np.hanning(1024), axis=1)) ** 2
    edges = np.unique(np.geomspace(3, 512, 41).astype(int))
    bands = np.log(np.add.reduceat(power[:, :512], edges[:-1], axis=1) + 1e-6)
    level = bands.mean(axis=1)
    voiced = bands[level > np.quantile(level, 0.4)]
    voiced = voiced - voiced.mean()
    return np.concatenate([voiced.mean(axis=0), voiced.std(axis=0)])


def _parts(speech: Speech) -> list[NDArray[np.float32]]:
    ends = np.cumsum([turn.num_frames for turn in speech.turns]) * 960
    return np.split(speech.samples, ends[:-1])


if __name__ == "__main__":
    main()
