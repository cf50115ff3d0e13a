"""Stage 3 (optional): train the codec's decoder further on fixed codes. One time-bounded run.

    python stage_refine.py --lines lines.tsv --codec codec.pt --out FOLDER --seconds 540 --workers 8

Writes ``codec_plain.pt`` (more reconstruction training) and ``codec_adversarial.pt`` (then with
discriminators). Codes keep their meaning, so the language model of stage 2 goes with either.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from higgs_rt.training.codec_model import compile_snake
from higgs_rt.training.codec_refine import CodePool, RefineSettings, refine_decoder
from higgs_rt.training.codec_train import encode_clips
from stage_codec import Clips, build_codec, load_weights, round_to_bf16, works
from synthesis import start_workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--codec", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--audio", type=Path, help="for spoken chunks; OUT/audio by default")
    parser.add_argument("--flite", type=Path, help="folder of an unpacked libflite1")
    parser.add_argument("--seconds", type=float, default=540.0, help="whole run")
    parser.add_argument("--adversarial-share", type=float, default=0.5)
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--chunk", type=int, default=500)
    parser.add_argument("--chunks", type=int, default=12, help="chunks of clips to train on")
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
    codec = build_codec()
    load_weights(codec, args.codec)
    codec.to(device)
    clips = Clips(audio)
    waves: list[torch.Tensor] = []
    while len(clips.chunks) < args.chunks:
        alive = any(process.poll() is None for process in processes)
        fresh = clips.poll(1)
        if not fresh and not alive:
            raise RuntimeError(
                f"[stage_refine] expected {args.chunks} chunks, got {len(clips.chunks)}"
            )
        for samples in fresh:
            cuts = np.cumsum(clips.chunks[-1]["frames"].astype(np.int64))[:-1] * 960
            waves.extend(torch.from_numpy(w) for w in np.split(samples.numpy(), cuts))
        time.sleep(0.1)
    log(f"{len(waves)} clips spoken")
    codes = torch.cat([c.t() for c in encode_clips(codec, waves)])
    pool = CodePool(torch.cat(waves).to(device), codes.to(device))
    log(f"{len(codes)} frames ({len(codes) / 90_000:.2f} h) encoded")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    if device.type == "cuda" and works("compile"):
        compile_snake()

    def save(name: str) -> None:
        kept = {k: v.clone() for k, v in codec.core.state_dict().items()}
        round_to_bf16(codec)
        torch.save(codec.core.state_dict(), args.out / f"codec_{name}.pt")
        codec.core.load_state_dict(kept)

    left = args.seconds - (time.monotonic() - begin) - 25.0
    settings = RefineSettings(
        seconds=left * (1.0 - args.adversarial_share),
        adversarial_seconds=left * args.adversarial_share,
        max_steps=args.steps,
        batch=args.batch,
    )
    refine_decoder(codec, pool, settings, log, save)
    log("done")


if __name__ == "__main__":
    main()
