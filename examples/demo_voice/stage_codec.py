"""Stage 1: speak the corpus, train the codec, refine its decoder, write the code cache.

    python stage_codec.py --lines lines.tsv --out FOLDER --seconds 560 --workers 12

One time-bounded run. First the whole codec learns; then all but the decoder is fixed, the weights
are rounded to bf16 (what is shipped), the clips are encoded, and the decoder goes on learning on
these codes. Writes ``codec.pt`` (fp32 storage) and ``codec_state.pt`` (optimizer, counts) every two
minutes, ``codes.npz`` (the clips as codes with word spans, then copies of some at other levels) and
``codec.log``. With ``--resume codec.pt`` training goes on from these weights, and where
``codec_state.pt`` lies beside them as if there had been no break. ``--rest-seconds 0`` leaves the
decoder and the code cache to such a later run, and ``--total-seconds`` tells the schedule how long
the whole codec learns in all runs.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from demo_config import CODEC
from higgs_rt.training.codec_model import (
    TrainableCodec,
    compile_snake,
    import_codec_classes,
    plain_snake,
)
from higgs_rt.training.codec_refine import CodePool, RefineSettings, refine_decoder
from higgs_rt.training.codec_train import AudioPool, CodecSettings, encode_pool, train_codec
from synthesis import FRAME, start_workers


class Clips:
    """Chunk files read so far: their audio in a pool, all else here."""

    def __init__(self, folder: Path, pool: AudioPool) -> None:
        self.folder, self.pool = folder, pool
        self.seen: set[str] = set()
        self.fields: dict[str, list[npt.NDArray[Any]]] = {
            name: [] for name in ("lines", "frames", "words", "spans")
        }

    def poll(self, limit: int) -> int:
        """Reads at most `limit` new chunks while the pool has room; returns how many."""
        fresh = sorted(self.folder.glob("chunk_[0-9][0-9][0-9][0-9].npz"))
        count = 0
        for path in fresh:
            if path.name in self.seen or count == limit:
                continue
            with np.load(path) as data:
                samples = torch.from_numpy(data["samples"])
                if samples.numel() > self.pool.samples.numel() - self.pool.filled:
                    break
                for name, parts in self.fields.items():
                    parts.append(data[name])
            self.pool.append(samples)
            self.seen.add(path.name)
            count += 1
        return count

    def joined(self, name: str) -> npt.NDArray[Any]:
        """One field of all clips."""
        return np.concatenate(self.fields[name])

    def audio(self) -> torch.Tensor:
        """int16 [960 F] of all clips, in order."""
        return self.pool.samples[: self.pool.filled]

    def describe(self) -> str:
        count = sum(len(part) for part in self.fields["frames"])
        return f"{count} clips, {self.pool.filled / 24_000 / 3600:.2f} h"


def build_codec() -> TrainableCodec:
    """A freshly initialised codec of the demo's dimensions."""
    config_class, model_class = import_codec_classes()
    codec = TrainableCodec(model_class(config_class(**CODEC)))
    codec.reset()
    return codec


def load_codec(path: Path) -> TrainableCodec:
    """The codec in ``codec.pt``, or in the shipped ``model.safetensors``."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = {name: tensor.float() for name, tensor in load_file(path).items()}
    else:
        state = torch.load(path, map_location="cpu")
    codec = build_codec()
    codec.core.load_state_dict(state)
    return codec


def round_to_bf16(codec: TrainableCodec) -> None:
    """Rounds every weight to the nearest bf16, keeping fp32 storage."""
    with torch.no_grad():
        for tensor in codec.core.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.to(torch.bfloat16).to(tensor.dtype))


def save(what: Any, path: Path) -> None:
    """torch.save that never leaves half a file."""
    partial = path.with_suffix(".partial")
    torch.save(what, partial)
    partial.rename(path)


class CodeCache:
    """Codes of the clips, made in order and in parts, as time allows."""

    def __init__(self, codec: TrainableCodec, clips: Clips) -> None:
        self.codec, self.clips = codec, clips
        self.codes = torch.empty(0, 8, dtype=torch.uint8, device=clips.pool.samples.device)
        self.count = 0  # clips encoded
        self.copies = np.zeros(0, np.int64)  # of these clips, at another level
        self.seconds = 0.0  # spent on them

    def extend(self, limit: int) -> bool:
        """Encodes at most `limit` more clips; false when there were none."""
        begin = time.monotonic()
        frames = self.clips.joined("frames")[self.count : self.count + limit].astype(np.int64)
        if not len(frames):
            return False
        plain_snake()
        torch.backends.cudnn.benchmark = False  # every length is another shape
        start = len(self.codes) * FRAME
        samples = self.clips.audio()[start : start + int(frames.sum()) * FRAME]
        made = encode_pool(self.codec, samples, torch.from_numpy(frames))
        self.codes = torch.cat([self.codes, made])
        self.codes[:1].cpu()  # waits
        torch.backends.cudnn.benchmark = True
        self.count += len(frames)
        self.seconds += time.monotonic() - begin
        return True

    def add_copies(self, most: int, keep_out: int = 512) -> None:
        """Encodes up to `most` of the clips again, each at a random level between -12 and +12 dB
        (within full scale); none of the last `keep_out`, which the language model is tried on.
        """
        begin = time.monotonic()
        frames = torch.from_numpy(self.clips.joined("frames")[: self.count].astype(np.int64))
        order = torch.randperm(max(0, self.count - keep_out))[:most].sort().values
        if not len(order):
            return
        device = self.codes.device
        sizes = frames[order].to(device)
        firsts = (frames.cumsum(0) - frames)[order].to(device)
        clip = torch.repeat_interleave(torch.arange(len(order), device=device), sizes)
        inside = torch.arange(len(clip), device=device) - (sizes.cumsum(0) - sizes)[clip]
        waves = self.clips.audio().view(-1, FRAME)[firsts[clip] + inside].float()
        peaks = torch.zeros(len(order), device=device)
        peaks.scatter_reduce_(0, clip, waves.abs().amax(1), "amax")
        gains = 10.0 ** (torch.empty(len(order), device=device).uniform_(-12.0, 12.0) / 20.0)
        gains = gains.minimum((0.99 * 32768.0 / peaks.clamp(min=1.0)).clamp(min=1.0))
        louder = (waves * gains[clip, None]).round().to(torch.int16).flatten()
        torch.backends.cudnn.benchmark = False
        self.codes = torch.cat([self.codes, encode_pool(self.codec, louder, sizes)])
        self.copies = order.numpy()
        self.codes[:1].cpu()  # waits
        self.seconds += time.monotonic() - begin

    def write(self, path: Path) -> None:
        """Codes and facts of the encoded clips; ``originals`` is the number of those that are no
        copies at another level.
        """
        fields = {name: self.clips.joined(name) for name in self.clips.fields}
        words = int(fields["words"][: self.count].astype(np.int64).sum())
        fields["spans"] = fields["spans"][:words]
        for name in ("lines", "frames", "words"):
            fields[name] = fields[name][: self.count]
        ends = np.cumsum(fields["words"].astype(np.int64))
        again = [fields["spans"][ends[i] - fields["words"][i] : ends[i]] for i in self.copies]
        fields["spans"] = np.concatenate([fields["spans"], *again])
        for name in ("lines", "frames", "words"):
            fields[name] = np.concatenate([fields[name], fields[name][self.copies]])
        arrays: Any = {"codes": self.codes.cpu().numpy(), "originals": self.count, **fields}
        np.savez(path, **arrays)


def use_fast_kernels() -> None:
    """TF32 and tuned convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--audio", type=Path, help="for spoken chunks; OUT/audio by default")
    parser.add_argument("--flite", type=Path, help="folder of an unpacked libflite1")
    parser.add_argument("--seconds", type=float, default=560.0, help="whole run")
    parser.add_argument(
        "--rest-seconds", type=float, default=230.0, help="of them for decoder and code cache"
    )
    parser.add_argument("--refine-clips", type=int, default=15_000)
    parser.add_argument("--clips", type=int, default=200_000, help="at most so many in the cache")
    parser.add_argument("--copies", type=int, default=16_000, help="clips again at other levels")
    parser.add_argument(
        "--total-seconds", type=float, default=0.0, help="whole codec, all runs; else up to here"
    )
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--chunk", type=int, default=200)
    parser.add_argument("--first-chunks", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=1_000_000, help="at most, in each phase")
    parser.add_argument("--learning-rate", type=float, default=CodecSettings.learning_rate)
    parser.add_argument("--refine-rate", type=float, default=RefineSettings.learning_rate)
    parser.add_argument("--pool-hours", type=float, default=160.0)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    begin = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    audio = args.audio or args.out / "audio"
    log_file = (args.out / "codec.log").open("a", encoding="utf-8")

    def log(text: str) -> None:
        line = f"[{time.monotonic() - begin:6.1f}] {text}"
        print(line, flush=True)
        print(line, file=log_file, flush=True)

    device = torch.device(args.device)
    torch.manual_seed(0)
    codec = load_codec(args.resume) if args.resume else build_codec()
    codec.to(device)
    log(f"{sum(p.numel() for p in codec.core.parameters()) / 1e6:.2f} M parameters on {device}")
    processes = start_workers(args.lines, audio, args.workers, args.chunk, args.flite)
    if device.type == "cuda":
        compile_snake()
    use_fast_kernels()
    samples = torch.zeros(int(args.pool_hours * 90_000) * FRAME, dtype=torch.int16, device=device)
    pool = AudioPool(samples)
    clips = Clips(audio, pool)
    while len(clips.seen) < args.first_chunks:
        ended = all(p.poll() is not None for p in processes)
        if not clips.poll(args.first_chunks - len(clips.seen)) and ended:
            raise RuntimeError(
                f"[stage_codec] expected {args.first_chunks} chunks, got {len(clips.seen)}"
            )
        time.sleep(0.2)
    log(f"{clips.describe()} to start with")
    train_all(codec, clips, args, args.seconds - (time.monotonic() - begin), log)
    if args.rest_seconds <= 0:
        stop(processes)
        return
    round_to_bf16(codec)
    save(codec.core.state_dict(), args.out / "codec.pt")
    cache = CodeCache(codec, clips)
    cache.extend(args.refine_clips)
    log(f"{cache.count} clips encoded in {cache.seconds:.1f} s for the refinement")
    wanted = min(args.clips, args.chunk * len(list(audio.glob("chunk_[0-9][0-9][0-9][0-9].npz"))))
    rest = max(0.0, (wanted + args.copies) / cache.count - 1.0) * cache.seconds + 15.0
    left = args.seconds - rest - (time.monotonic() - begin)
    log(f"{left:.0f} s for the decoder, {rest:.0f} s for the rest of the code cache")
    train_decoder(codec, CodePool(clips.audio(), cache.codes), args, left, log)
    stop(processes)
    while clips.poll(8):
        pass
    while cache.count < args.clips:
        now = time.monotonic() - begin
        part = min(8_000, args.clips - cache.count)
        each = cache.seconds / cache.count
        if now + (part + args.copies) * each > args.seconds - 8.0 or not cache.extend(part):
            break
    log(f"{cache.count} clips encoded in {cache.seconds:.1f} s")
    cache.add_copies(args.copies)
    cache.write(args.out / "codes.npz")
    log(
        f"{cache.count} clips and {len(cache.copies)} copies in the code cache, "
        f"{len(cache.codes) / 90_000:.1f} h"
    )


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ends the speaking processes; what they have finished stays."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()


def train_all(
    codec: TrainableCodec,
    clips: Clips,
    args: argparse.Namespace,
    left: float,
    log: Callable[[str], None],
) -> None:
    """The whole codec, until the time of the refinement and the code cache is left."""
    beside = args.resume.with_name("codec_state.pt") if args.resume else None
    earlier = torch.load(beside, map_location="cpu") if beside and beside.exists() else None
    settings = CodecSettings(
        seconds=left - args.rest_seconds,
        batch=args.batch,
        max_steps=args.steps,
        total_seconds=args.total_seconds,
        learning_rate=args.learning_rate,
    )
    if args.resume and earlier is None:
        settings.wave_weight = settings.wave_weight_end
        settings.seed_steps = ()
    if settings.seconds <= 0 or args.steps == 0:  # only refine, or make the code cache again
        return

    def keep(state: dict[str, Any]) -> None:
        save(codec.core.state_dict(), args.out / "codec.pt")
        save(state, args.out / "codec_state.pt")

    log(f"whole codec for {settings.seconds:.0f} s, earlier state: {earlier is not None}")
    train_codec(codec, clips.pool, settings, log, lambda: (clips.poll(6), None)[1], earlier, keep)


def train_decoder(
    codec: TrainableCodec,
    pool: CodePool,
    args: argparse.Namespace,
    left: float,
    log: Callable[[str], None],
) -> None:
    """The decoder alone, on fixed codes; leaves bf16 values and writes ``codec.pt``."""
    if pool.samples.device.type == "cuda":
        compile_snake()
    settings = RefineSettings(
        seconds=left, batch=args.batch, max_steps=args.steps, learning_rate=args.refine_rate
    )
    if left > 0 and args.steps > 0:
        refine_decoder(codec, pool, settings, log)
    round_to_bf16(codec)
    save(codec.core.state_dict(), args.out / "codec.pt")


if __name__ == "__main__":
    main()
