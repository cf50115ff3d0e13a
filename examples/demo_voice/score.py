"""Word error rates and ends of a trained checkpoint, with transformers' own generate on the CPU.

    python score.py codec --voice slt [--codec codec.pt]     teacher, and teacher through the codec
    python score.py model [--voice slt] [--temperature 0.7]  plain prompt; with --voice, cloned

The recogniser is pocketsphinx with a flat unigram over the words of the sentences (or of another
vocabulary). Greedy is temperature 0; repetition-aware sampling is always on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from corpus import TEXTS
from demo_config import CODE_COUNT, token_id
from flite_speech import VOICES, Flite
from higgs_rt.evaluation.recognisers import PocketSphinx
from higgs_rt.evaluation.wer import read_lines, score, spoken_words
from higgs_rt.training.codec_model import TrainableCodec
from higgs_rt.training.labels import delayed_columns
from stage_codec import load_codec
from stage_lm import prefixes, user_turn
from synthesis import FRAME, clip_of

RATE = 24_000
LIMIT = 375
Wave = npt.NDArray[np.float32]


def report(name: str, sentences: list[str], waves: list[Wave], ears: PocketSphinx) -> None:
    """Prints the word error rate of `waves` (24 kHz) against `sentences`."""
    heard = [ears.transcribe(wave, RATE) for wave in waves]
    result = score([spoken_words(text) for text in sentences], heard)
    print(f"{name}: WER {result.wer:.3f} over {result.words} words, {len(sentences)} sentences")


def score_codec(
    codec: TrainableCodec, voice: str, sentences: list[str], ears: PocketSphinx
) -> None:
    """The teacher's speech, as it is and through the codec."""
    flite = Flite()
    clips = [clip_of(flite.speak(text, voice))[0] for text in sentences]
    raw = [clip.astype(np.float32) / 32768.0 for clip in clips]
    made = []
    for wave in raw:
        codes = codec.quantise(codec.encode_latent(torch.from_numpy(wave)[None])).codes
        made.append(codec.core.decode(codes).audio_values[0, 0].numpy())
    report(f"{voice} teacher", sentences, raw, ears)
    report(f"{voice} codec", sentences, made, ears)


def reference_columns(codec: TrainableCodec, file: Path) -> torch.Tensor:
    """Delayed columns [T+9, 8] of a recording."""
    import soundfile
    import soxr

    wave, rate = soundfile.read(file, dtype="float32")
    wave = soxr.resample(wave, rate, RATE)
    wave = np.pad(wave, (0, -len(wave) % FRAME))
    codes = codec.quantise(codec.encode_latent(torch.from_numpy(wave)[None])).codes[0]
    return delayed_columns(codes, CODE_COUNT, CODE_COUNT + 1)


def generate(
    model: Any, prompts: list[list[int]], reference: torch.Tensor | None, temperature: float
) -> torch.Tensor:
    """Columns [B, n, 8] of all prompts in one batch, padded on the left."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), model.config.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    options: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        options = {"do_sample": True, "temperature": temperature, "top_k": 50, "top_p": 0.95}
    if reference is not None:
        shape = (len(prompts), len(reference))
        options["audio_input_ids"] = reference[None].expand(*shape, 8).clone()
        options["audio_input_ids_mask"] = torch.ones(shape, dtype=torch.bool)
    columns: torch.Tensor = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=LIMIT, **options
    )
    return columns if reference is None else columns[:, len(reference) :]


def score_model(
    codec: TrainableCodec, args: argparse.Namespace, sentences: list[str], ears: PocketSphinx
) -> None:
    """Speaks every sentence; prints how many ended by themselves, and the word error rate."""
    from transformers import HiggsAudioV2ForConditionalGeneration

    loader: Any = HiggsAudioV2ForConditionalGeneration
    model = loader.from_pretrained(args.model, dtype=torch.float32).eval()
    prompts = [prefixes()[1] + user_turn(text) for text in sentences]
    reference = None
    if args.voice:
        folder = args.model / "references"
        reference = reference_columns(codec, folder / f"{args.voice}.flac")
        said = (folder / f"{args.voice}.txt").read_text(encoding="utf-8").strip()
        head = prefixes()[0] + user_turn(said) + [model.config.audio_token_id] * len(reference)
        head += [token_id("<|audio_eos|>"), token_id("<|eot_id|>")]
        prompts = [head + user_turn(text) for text in sentences]
    torch.manual_seed(args.seed)
    columns = generate(model, prompts, reference, args.temperature)
    waves: list[Wave] = []
    lengths = []
    unended = 0
    for row in columns:
        ends = (row[:, 0] == CODE_COUNT + 1).nonzero()
        unended += len(ends) == 0
        frames = (int(ends[0]) if len(ends) else len(row)) - 1
        frames = min(frames, len(row) - 8)
        codes = torch.stack([row[k + 1 : k + 1 + frames, k] for k in range(8)])
        codes = codes[:, (codes < CODE_COUNT).all(0)]
        waves.append(codec.core.decode(codes[None]).audio_values[0, 0].numpy())
        lengths.append(frames)
    name = f"{args.voice} cloned" if args.voice else "plain"
    print(f"{name}: {unended} length stops, frames mean {np.mean(lengths):.1f} max {max(lengths)}")
    report(f"{name} at temperature {args.temperature}", sentences, waves, ears)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("codec", "model"))
    parser.add_argument("--model", type=Path, default=Path("python/higgs_rt/data/demo"))
    parser.add_argument("--codec", type=Path, help="codec.pt, if not the model's own")
    parser.add_argument("--voice", choices=VOICES)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sentences", type=Path, default=TEXTS / "sentences.txt")
    parser.add_argument("--vocabulary", type=Path, help="words to choose from, if not SENTENCES'")
    args = parser.parse_args()
    sentences = read_lines(args.sentences)
    source = args.vocabulary or args.sentences
    words = {word for line in read_lines(source) for word in spoken_words(line)}
    ears = PocketSphinx(words)
    codec = load_codec(args.codec or args.model / "codec" / "model.safetensors")
    codec.eval()
    with torch.no_grad():
        if args.what == "codec":
            score_codec(codec, args.voice or "slt", sentences, ears)
        else:
            score_model(codec, args, sentences, ears)


if __name__ == "__main__":
    main()
