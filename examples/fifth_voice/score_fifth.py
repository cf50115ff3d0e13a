"""Whether an adapter speaks with the fifth voice, and what it leaves of the others.

    python score_fifth.py --adapter DIR [--model DIR] [--sentences FILE] [--temperature 0]

Speaks the held-out sentences with a plain prompt through the native runtime, without the adapter
and with it, and prints the word error rate and the nearest of five voices: the four that the model
was trained on, and the fifth. The feature knows nothing of the models (``demo_voice/speakers.py``);
it is fitted on recordings of all five and tried on others. The base model's clones are scored too,
and the base model is loaded again afterwards: its samples must be the same.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from check_voices import FITTED, fresh_lines, teacher_clips
from fifth_speech import RATE as CODEC_RATE
from fifth_speech import FifthVoice
from flite_speech import VOICES
from higgs_rt import Runtime
from higgs_rt.audio import resample
from higgs_rt.evaluation.recognisers import PocketSphinx
from higgs_rt.evaluation.wer import read_lines, score, spoken_words
from speakers import RATE, NearestVoice

FIFTH = "fifth"
Wave = npt.NDArray[np.float32]


def fitted() -> NearestVoice:
    """The nearest of five voices; prints how it does on recordings it was not fitted on."""
    lines = fresh_lines(2 * FITTED, seed=1)
    fifth = FifthVoice()
    clips = teacher_clips(lines)
    clips[FIFTH] = [resample(fifth.speak(line), CODEC_RATE, RATE) for line in lines]
    nearest = NearestVoice({voice: waves[:FITTED] for voice, waves in clips.items()})
    right = sum(nearest(w) == voice for voice, waves in clips.items() for w in waves[FITTED:])
    print(f"nearest voice on held-out teacher recordings: {right} of {FITTED * len(clips)}")
    return nearest


def spoken(
    model: Path | None,
    adapter: Path | None,
    voice: str | None,
    lines: list[str],
    temperature: float,
) -> list[Wave]:
    """The lines by the native runtime, 24 kHz; line n has seed n."""
    with Runtime.load(model, adapter=adapter) as runtime:
        streams = [
            runtime.submit(line, seed=n, temperature=temperature, voice=voice)
            for n, line in enumerate(lines)
        ]
        return [stream.result().samples for stream in streams]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="the packaged one by default")
    parser.add_argument("--sentences", type=Path, default=Path("tests/data/sentences.txt"))
    parser.add_argument("--temperature", type=float, default=0.0)
    args = parser.parse_args()
    lines = read_lines(args.sentences)
    words = [spoken_words(line) for line in lines]
    ears = PocketSphinx(word for line in words for word in line)
    nearest = fitted()

    def report(name: str, waves: list[Wave]) -> None:
        wer = score(words, [ears.transcribe(wave, CODEC_RATE) for wave in waves]).wer
        voices = Counter(nearest(resample(wave, CODEC_RATE, RATE)) for wave in waves)
        share = voices[FIFTH] / len(waves)
        print(f"{name}: WER {wer:.3f}, {share:.1%} fifth; {dict(voices.most_common())}", flush=True)

    fifth = FifthVoice()
    report("fifth, teacher", [fifth.speak(line) for line in lines])
    plain = spoken(args.model, None, None, lines, args.temperature)
    report("base, plain", plain)
    for voice in VOICES:
        report(f"base, {voice}", spoken(args.model, None, voice, lines, args.temperature))
    report("adapter, plain", spoken(args.model, args.adapter, None, lines, args.temperature))
    again = spoken(args.model, None, None, lines, args.temperature)
    if not all(map(np.array_equal, plain, again)):
        raise SystemExit("expected the base model to speak as before, got other samples")
    print("base, plain, loaded again: the same samples")


if __name__ == "__main__":
    main()
