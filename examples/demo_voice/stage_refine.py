"""Stage 3 (optional): train the codec's decoder further on fixed codes. One time-bounded run.

    python stage_refine.py --lines lines.tsv --codec codec.pt --out FOLDER --seconds 540 --workers 8

Writes ``codec_plain.pt`` (more reconstruction training) and, with ``--adversarial-share``,
``codec_adversarial.pt`` (then with discriminators). Codes keep their meaning, so the language model
of stage 2 goes with either. ``--decoder-width`` trains a narrower decoder, which starts from the
strongest channels of the one it is given.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from higgs_rt.training.codec_model import TrainableCodec, compile_snake, plain_snake
from higgs_rt.training.codec_narrow import narrow_decoder
from higgs_rt.training.codec_refine import CodePool, RefineSettings, refine_decoder
from higgs_rt.training.codec_train import encode_clips
from stage_codec import Clips, build_codec, load_codec, round_to_bf16, works
from synthesis import FRAME, start_workers

SPARE_SECONDS = 8.0  # for the last save


def with_decoder_width(codec: TrainableCodec, width: int) -> TrainableCodec:
    """The same codec with a narrower decoder, still to be trained."""
    made = build_codec(width)
    kept = {k: v for k, v in codec.core.state_dict().items() if "acoustic_decoder" not in k}
    made.core.load_state_dict(kept, strict=False)
    narrow_decoder(codec.core.acoustic_decoder, made.core.acoustic_decoder)
    return made


def full_precision(on: bool) -> None:
    """Exact fp32 (so that codes are those of the runtime), or TF32 and tuned kernels."""
    torch.backends.cuda.matmul.allow_tf32 = not on
    torch.backends.cudnn.allow_tf32 = not on
    torch.backends.cudnn.benchmark = not on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--codec", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--audio", type=Path, help="for spoken chunks; OUT/audio by default")
    parser.add_argument("--flite", type=Path, help="folder of an unpacked libflite1")
    parser.add_argument("--seconds", type=float, default=540.0, help="whole run")
    parser.add_argument("--adversarial-share", type=float, default=0.0)
    parser.add_argument("--decoder-width", type=int, help="as given by --codec by default")
    parser.add_argument("--learning-rate", type=float, default=6e-4)
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--chunk", type=int, default=500)
    parser.add_argument("--chunks", type=int, default=12, help="chunks of clips to train on")
    parser.add_argument("--first-chunks", type=int, default=8, help="of these, to start with")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--steps", type=int, default=1_000_000, help="at most so many in each phase"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    begin = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    audio = args.audio or args.out / "audio"
    log_file = (args.out / "refine.log").open("a", encoding="utf-8")

    def log(text: str) -> None:
        line = f"[{time.monotonic() - begin:6.1f}] {text}"
        print(line, flush=True)
        print(line, file=log_file, flush=True)

    rows = args.lines.read_text(encoding="utf-8").splitlines()[: args.chunks * args.chunk]
    lines = args.out / "lines.tsv"
    lines.write_text("\n".join(rows) + "\n", encoding="utf-8")
    processes = start_workers(lines, audio, args.workers, args.chunk, args.flite)
    device = torch.device(args.device)
    torch.manual_seed(0)
    codec = load_codec(args.codec)
    if args.decoder_width:
        codec = with_decoder_width(codec, args.decoder_width)
    codec.to(device)
    compiled = device.type == "cuda" and works("compile")
    clips = Clips(audio)

    def encoded(limit: int) -> tuple[torch.Tensor, torch.Tensor]:
        """At most `limit` new chunks: samples (int16 [960 F]) and codes (uint8 [F, 8])."""
        plain_snake()
        full_precision(True)
        waves: list[torch.Tensor] = []
        fresh = clips.poll(limit)
        chunks = clips.chunks[len(clips.chunks) - len(fresh) :]
        for samples, chunk in zip(fresh, chunks, strict=True):
            cuts = np.cumsum(chunk["frames"].astype(np.int64))[:-1] * FRAME
            waves.extend(torch.from_numpy(w) for w in np.split(samples.numpy(), cuts))
        codes = [c.t() for c in encode_clips(codec, waves)]
        return (
            torch.cat([*waves, torch.empty(0, dtype=torch.int16)]),
            torch.cat([*codes, torch.empty(0, 8, dtype=torch.uint8)]),
        )

    nothing = encoded(0)
    pool = CodePool(nothing[0].to(device), nothing[1].to(device))

    def refill() -> None:
        if len(clips.chunks) < args.chunks:
            pool.append(*encoded(args.chunks - len(clips.chunks)))

    while len(clips.chunks) < min(args.first_chunks, args.chunks):
        ended = all(process.poll() is not None for process in processes)
        before = len(clips.chunks)
        refill()
        if ended and len(clips.chunks) == before:
            raise RuntimeError(f"[stage_refine] expected {args.first_chunks} chunks, got {before}")
        time.sleep(0.1)
    log(f"{clips.count()} clips, {len(pool.codes) / 90_000:.2f} h to start with")
    full_precision(False)
    if compiled:
        compile_snake()

    def save(name: str) -> None:
        kept = {k: v.clone() for k, v in codec.core.state_dict().items()}
        round_to_bf16(codec)
        partial = args.out / f"codec_{name}.partial"
        torch.save(codec.core.state_dict(), partial)
        partial.rename(partial.with_suffix(".pt"))
        codec.core.load_state_dict(kept)

    left = args.seconds - (time.monotonic() - begin) - SPARE_SECONDS
    settings = RefineSettings(
        seconds=left * (1.0 - args.adversarial_share),
        adversarial_seconds=left * args.adversarial_share,
        max_steps=args.steps,
        batch=args.batch,
        learning_rate=args.learning_rate,
    )
    refine_decoder(codec, pool, settings, log, save, refill)
    log(f"done; {clips.count()} clips, {len(pool.codes) / 90_000:.2f} h in the pool")
    for process in processes:
        process.terminate()


if __name__ == "__main__":
    main()
