"""Whether an adapter speaks with the fifth voice, and what it leaves of the others.

    python score_fifth.py --adapter DIR [--model DIR] [--sentences FILE] [--temperature 0]

Speaks the held-out sentences with a plain prompt through the native runtime, without the adapter
and with it, and prints the word error rate and the nearest of five voices: the four that the model
was trained on, and the fifth. The feature knows nothing of the models (``demo_voice/speakers.py``);
it is fitted on recordings of all five that went through the codec, and tried on others. The base
model's clones are scored too. Afterwards the base model is loaded again, and a checkpoint into
which the adapter was merged: their samples must be those of before, and those of the adapter. Ends
with an error where a bound of the issue is missed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from check_voices import FITTED, fresh_lines
from corpus import TEXTS
from fifth_speech import RATE as CODEC_RATE
from fifth_speech import FifthVoice
from flite_speech import VOICES, Flite
from higgs_rt import Runtime
from higgs_rt import _higgs_rt as native
from higgs_rt.audio import resample
from higgs_rt.checkpoint import resolve_model
from higgs_rt.codec import CodecEncoder
from higgs_rt.evaluation.recognisers import PocketSphinx
from higgs_rt.evaluation.wer import read_lines, score, spoken_words
from higgs_rt.training.lora.merge import merge
from speakers import RATE, NearestVoice
from synthesis import clip_of

FIFTH = "fifth"
Wave = npt.NDArray[np.float32]


class Codec:
    """The model's codec: what a recording sounds like that the model repeats without a fault."""

    def __init__(self, model: Path | None) -> None:
        files = resolve_model(model)
        self._encoder = CodecEncoder.load(files.codec_dir)
        self._runtime = native.Runtime.load(
            native.RuntimeConfig(str(files.model_dir), codec_dir=str(files.codec_dir))
        )

    def __call__(self, wave: Wave) -> Wave:
        """wave [960 n] at 24 kHz through the codec and back."""
        return np.asarray(self._runtime.decode_frames(self._encoder.encode(wave)), np.float32)


def recordings(lines: list[str]) -> dict[str, list[Wave]]:
    """The lines by all five voices, 24 kHz."""
    flite, fifth = Flite(), FifthVoice()
    made = {
        voice: [np.float32(1 / 32768) * clip_of(flite.speak(line, voice))[0] for line in lines]
        for voice in VOICES
    }
    return {**made, FIFTH: [fifth.speak(line) for line in lines]}


def fitted(codec: Codec, count: int) -> NearestVoice:
    """The nearest of five voices, as the codec leaves them; prints how it does on other recordings.

    The demo's codec knows four voices and pulls a fifth towards them: of the fifth voice's own
    recordings, a classifier that was fitted without the codec takes those that went through it for
    rms or awb. The adapter changes the language model only, so what it can reach is the voice as
    the codec says it.
    """
    made = recordings(fresh_lines(2 * count, seed=1))
    clips = {
        voice: [resample(codec(wave), CODEC_RATE, RATE) for wave in waves]
        for voice, waves in made.items()
    }
    nearest = NearestVoice({voice: waves[:count] for voice, waves in clips.items()})
    right = {v: sum(nearest(w) == v for w in waves[count:]) for v, waves in clips.items()}
    print(f"nearest voice on {count} other recordings of each, through the codec: {right}")
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
    parser.add_argument("--sentences", type=Path, default=TEXTS / "sentences.txt")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--fitted", type=int, default=FITTED, help="recordings of each voice")
    args = parser.parse_args()
    lines = read_lines(args.sentences)
    words = [spoken_words(line) for line in lines]
    ears = PocketSphinx(word for line in words for word in line)
    codec = Codec(args.model)
    nearest = fitted(codec, args.fitted)

    def report(name: str, waves: list[Wave]) -> tuple[float, float]:
        wer = score(words, [ears.transcribe(wave, CODEC_RATE) for wave in waves]).wer
        voices = Counter(nearest(resample(wave, CODEC_RATE, RATE)) for wave in waves)
        share = voices[FIFTH] / len(waves)
        print(f"{name}: WER {wer:.3f}, {share:.1%} fifth; {dict(voices.most_common())}", flush=True)
        return wer, share

    fifth = [FifthVoice().speak(line) for line in lines]
    report("fifth, teacher", fifth)
    report("fifth, through the codec", [codec(wave) for wave in fifth])
    plain = spoken(args.model, None, None, lines, args.temperature)
    base = [report("base, plain", plain)[0]]
    for voice in VOICES:
        waves = spoken(args.model, None, voice, lines, args.temperature)
        base.append(report(f"base, {voice}", waves)[0])
    adapted = spoken(args.model, args.adapter, None, lines, args.temperature)
    wer, share = report("adapter, plain", adapted)
    again = spoken(args.model, None, None, lines, args.temperature)
    with tempfile.TemporaryDirectory() as folder:
        files = resolve_model(args.model)
        merge(files.model_dir, args.adapter, Path(folder) / "merged")
        merged = spoken(Path(folder) / "merged", None, None, lines, args.temperature)
    kept = all(map(np.array_equal, plain, again))
    equal = all(map(np.array_equal, adapted, merged))
    above = 100 * (wer - sum(base) / len(base))
    print(f"base loaded again: same samples {kept}; merged checkpoint: same samples {equal}")
    print(f"word error rate {above:+.1f} points from the mean of the base model's voices")
    if not (kept and equal and share >= 0.95 and above <= 5.0):
        raise SystemExit("expected the same samples, 95 % fifth, 5 points at most")


if __name__ == "__main__":
    main()
