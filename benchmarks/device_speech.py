"""Word error rate of the packaged voices on a device.

    python benchmarks/device_speech.py speak DIR --device cuda [--sentences 25]
    python benchmarks/device_speech.py score DIR

`speak` writes what every packaged voice says to DIR/<voice>.npz, and may run where no recogniser is
installed. `score` recognises it (pocketsphinx) and prints the word error rate of every voice.
Sampling and seeds are those of tests/python/test_speech.py.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from higgs_rt import Runtime
from higgs_rt.audio import Audio
from higgs_rt.evaluation import make_recogniser, read_lines, score_system, spoken_words
from higgs_rt.evaluation.systems import Utterance

SENTENCES = Path(__file__).resolve().parent.parent / "tests" / "data" / "sentences.txt"
VOICES = ("slt", "rms", "awb", "kal16")


def speak(folder: Path, device: str, count: int) -> None:
    """Speak the first `count` sentences with every voice, all of a voice at once."""
    lines = read_lines(SENTENCES)[:count]
    folder.mkdir(parents=True, exist_ok=True)
    with Runtime.load(device=device) as runtime:
        for voice in VOICES:
            begin = time.monotonic()
            streams = [
                runtime.submit(line, voice=voice, seed=i, top_k=50) for i, line in enumerate(lines)
            ]
            said = [stream.result() for stream in streams]
            passed = time.monotonic() - begin
            seconds = sum(one.seconds for one in said)
            stops = sum(one.finish == "length" for one in said)
            print(
                f"{voice}: {seconds:.1f} s of speech on {device} in {passed:.2f} s, "
                f"{stops} length stops",
                flush=True,
            )
            arrays: dict[str, Any] = {
                f"line{i:03d}": np.round(one.samples * 32767).astype(np.int16)
                for i, one in enumerate(said)
            }
            np.savez_compressed(
                folder / f"{voice}.npz",
                sample_rate=np.int32(said[0].sample_rate),
                finish=np.array([one.finish for one in said]),
                **arrays,
            )


def score(folder: Path) -> None:
    """Recognise and score what speak() wrote."""
    lines = read_lines(SENTENCES)
    words = {word for line in lines for word in spoken_words(line)}
    recogniser = make_recogniser("pocketsphinx", words)
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            rate = int(stored["sample_rate"])
            said = [
                Utterance(Audio(stored[f"line{i:03d}"].astype(np.float32) / 32767, rate), str(end))
                for i, end in enumerate(stored["finish"])
            ]
        result = score_system(path.stem, lines[: len(said)], said, recogniser)
        print(
            f"{path.stem}: WER {result.score.wer:.3f} over {result.score.words} words of "
            f"{len(said)} lines, {result.seconds:.1f} s, {result.num_length_stops} length stops"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("speak", "score"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sentences", type=int, default=25)
    options = parser.parse_args()
    if options.action == "speak":
        speak(options.folder, options.device, options.sentences)
    else:
        score(options.folder)


if __name__ == "__main__":
    main()
