"""Stage 1: speak the corpus, train the codec, write the code cache. One time-bounded run.

    python stage_codec.py --lines lines.tsv --out FOLDER --seconds 560 --workers 14

Writes ``codec.pt`` (fp32 weights), ``codes.npz`` (all clips as codes, with word spans) and
``codec.log``. With ``--resume codec.pt`` training goes on from these weights. The weights are
rounded to bf16 (what is shipped) before the clips are encoded, so that the cache holds exactly the
codes the shipped codec gives.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from demo_config import CODEC
from higgs_rt.training.codec_losses import MelLoss
from higgs_rt.training.codec_model import (
    FusedSnake,
    TrainableCodec,
    compile_snake,
    import_codec_classes,
)
from higgs_rt.training.codec_train import AudioPool, CodecSettings, encode_clips, train_codec
from higgs_rt.training.graph import GraphedStep
from synthesis import start_workers


class Clips:
    """Chunk files read so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: set[str] = set()
        self.chunks: list[dict[str, npt.NDArray[Any]]] = []

    def poll(self, limit: int) -> list[torch.Tensor]:
        """Reads at most `limit` new chunks; returns their samples (int16)."""
        fresh: list[torch.Tensor] = []
        for path in sorted(self.folder.glob("chunk_[0-9][0-9][0-9][0-9].npz")):
            if path.name not in self.seen and len(fresh) < limit:
                self.seen.add(path.name)
                with np.load(path) as data:
                    self.chunks.append({name: data[name] for name in data.files})
                fresh.append(torch.from_numpy(self.chunks[-1]["samples"]))
        return fresh

    def count(self) -> int:
        return sum(len(chunk["lines"]) for chunk in self.chunks)


def probe(what: str) -> None:
    """Raises where this machine cannot capture an FFT in a CUDA graph, or compile the snake
    kernels.
    """
    device = torch.device("cuda")
    x = torch.randn(2, 8, 4096, device=device)
    if what == "fft":
        losses = MelLoss().to(device)
        wave = x[:, 0].clone().requires_grad_(True)

        def step() -> dict[str, torch.Tensor]:
            wave.grad = None
            value = losses(wave, x[:, 1])[0]
            value.backward()
            return {"value": value.detach()}

        made = GraphedStep(step, device)()["value"]
        if abs(float(made) - float(losses(wave, x[:, 1])[0])) > 1e-3:
            raise RuntimeError("[probe] expected the replayed loss to equal the eager loss")
    else:
        compile_snake()
        snake: Any = FusedSnake.apply
        snake(x.requires_grad_(True), torch.ones(1, 8, 1, device=device)).sum().backward()


def works(what: str) -> bool:
    """Runs a probe in its own process, so that a failure leaves this one's CUDA state alone."""
    return subprocess.run([sys.executable, __file__, "--probe", what], check=False).returncode == 0


def build_codec(decoder_width: int | None = None) -> TrainableCodec:
    """A freshly initialised codec of the demo's dimensions, or with another decoder width."""
    config_class, model_class = import_codec_classes()
    acoustic = dict(CODEC["acoustic_model_config"])
    if decoder_width is not None:
        acoustic["decoder_hidden_size"] = decoder_width
    codec = TrainableCodec(model_class(config_class(**CODEC | {"acoustic_model_config": acoustic})))
    codec.reset()
    return codec


def load_codec(path: Path) -> TrainableCodec:
    """The codec in ``codec.pt``, or in the shipped ``model.safetensors``, of any decoder width."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = {name: tensor.float() for name, tensor in load_file(path).items()}
    else:
        state = torch.load(path, map_location="cpu")
    codec = build_codec(state["acoustic_decoder.conv1.weight"].shape[0])
    codec.core.load_state_dict(state)
    return codec


def round_to_bf16(codec: TrainableCodec) -> None:
    """Rounds every weight to the nearest bf16, keeping fp32 storage."""
    with torch.no_grad():
        for tensor in codec.core.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.to(torch.bfloat16).to(tensor.dtype))


def write_codes(codec: TrainableCodec, clips: Clips, limit: int, path: Path) -> int:
    """Encodes at most `limit` clips and writes the cache; returns how many."""
    waves: list[torch.Tensor] = []
    fields: dict[str, list[npt.NDArray[Any]]] = {
        k: [] for k in ("lines", "frames", "words", "spans")
    }
    for chunk in clips.chunks:
        if len(waves) >= limit:
            break
        cuts = np.cumsum(chunk["frames"].astype(np.int64))[:-1] * 960
        waves.extend(torch.from_numpy(w) for w in np.split(chunk["samples"], cuts))
        for name, parts in fields.items():
            parts.append(chunk[name])
    codes = encode_clips(codec, waves)
    rows = np.concatenate([c.numpy().T for c in codes])
    arrays: dict[str, Any] = {name: np.concatenate(parts) for name, parts in fields.items()}
    np.savez(path, codes=rows, **arrays)
    return len(waves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--probe", choices=("fft", "compile"), help="only check this machine")
    parser.add_argument("--lines", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--audio", type=Path, help="for spoken chunks; OUT/audio by default")
    parser.add_argument("--flite", type=Path, help="folder of an unpacked libflite1")
    parser.add_argument("--seconds", type=float, default=560.0, help="whole run")
    parser.add_argument(
        "--encode-seconds", type=float, default=85.0, help="kept for the code cache"
    )
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--chunk", type=int, default=500)
    parser.add_argument("--clips", type=int, default=85_000, help="at most so many in the cache")
    parser.add_argument("--first-chunks", type=int, default=14)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--pool-hours", type=float, default=20.0)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if args.probe:
        probe(args.probe)
        return
    if args.lines is None or args.out is None:
        parser.error("expected --lines and --out")
    begin = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    audio = args.audio or args.out / "audio"
    log_file = (args.out / "codec.log").open("a", encoding="utf-8")

    def log(text: str) -> None:
        line = f"[{time.monotonic() - begin:6.1f}] {text}"
        print(line, flush=True)
        print(line, file=log_file, flush=True)

    processes = start_workers(args.lines, audio, args.workers, args.chunk, args.flite)
    device = torch.device(args.device)
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    codec = load_codec(args.resume) if args.resume else build_codec()
    codec.to(device)
    log(f"{sum(p.numel() for p in codec.core.parameters()) / 1e6:.2f} M parameters on {device}")
    use_fft = True
    if device.type == "cuda":
        use_fft = works("fft")
        compiled = works("compile")
        log(f"FFT in a CUDA graph: {use_fft}; compiled snake: {compiled}")
        if compiled:
            compile_snake()
    clips = Clips(audio)
    pool = AudioPool(
        torch.zeros(int(args.pool_hours * 3600 * 24_000), dtype=torch.int16, device=device)
    )
    while len(clips.chunks) < args.first_chunks:
        if all(p.poll() is not None for p in processes) and not clips.poll(1):
            raise RuntimeError(
                f"[stage_codec] expected {args.first_chunks} chunks, got {len(clips.chunks)}"
            )
        for samples in clips.poll(args.first_chunks - len(clips.chunks)):
            pool.append(samples)
        time.sleep(0.2)
    log(f"{clips.count()} clips, {pool.filled / 24_000 / 3600:.2f} h to start with")

    def refill() -> None:
        for samples in clips.poll(2):
            pool.append(samples)
        torch.save(codec.core.state_dict(), args.out / "codec.pt")

    if args.steps > 0:  # 0: only make the code cache again
        left = args.seconds - args.encode_seconds - (time.monotonic() - begin)
        settings = CodecSettings(
            seconds=left,
            batch=args.batch,
            max_steps=args.steps,
            use_fft=use_fft,
            seed_steps=() if args.resume else CodecSettings.seed_steps,
        )
        steps = train_codec(codec, pool, settings, log, refill)
        log(
            f"{steps} steps; {clips.count()} clips read, "
            f"{pool.filled / 24_000 / 3600:.2f} h in the pool"
        )
    round_to_bf16(codec)
    torch.save(codec.core.state_dict(), args.out / "codec.pt")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    while clips.poll(8) and time.monotonic() - begin < args.seconds - 0.7 * args.encode_seconds:
        pass
    count = write_codes(codec, clips, args.clips, args.out / "codes.npz")
    log(f"{count} clips encoded")
    for process in processes:
        process.terminate()


if __name__ == "__main__":
    main()
