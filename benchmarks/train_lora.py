"""LoRA training of the released shapes with random weights: positions a second, memory, FLOPs.

    python benchmarks/train_lora.py [--rows 8] [--length 1024] [--checkpointing] [--layers 28]
    torchrun --nproc-per-node 2 benchmarks/train_lora.py ...
    [torchrun ...] python benchmarks/train_lora.py --gradients FILE

`--gradients` takes one step's batches of a small random model (fp32, without dropout) and writes
the gradients: one process accumulates what `--world` processes would share, so files of different
numbers of processes must agree (`--compare A B`).

FLOPs are the model's: 4 for each weight that a position passes (forward, and the gradient of the
activations; frozen weights get none), 6 for each adapter weight, 12 for each pair of channel and
earlier position and layer (causal). What checkpointing computes again is not counted. The share is
of the dense bf16 peak, `--peak` TFLOP/s.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from higgs_rt.checkpoint.random_checkpoint import LmShape, random_lm_tensors, transformers_config
from higgs_rt.training.labels import column_labels, delayed_columns
from higgs_rt.training.lora.config import parse_config
from higgs_rt.training.lora.data import Loaded
from higgs_rt.training.lora.examples import Example
from higgs_rt.training.lora.trainer import Trainer

TEXT = 100  # positions of a sequence
PEAK_H200 = 989.0  # TFLOP/s, bf16, dense
SMALL = LmShape(128, 3, 4, 2, 32, 256, 320, 64)


def released(layers: int) -> LmShape:
    """The 3B release, or fewer of its layers."""
    return LmShape(3072, layers, 24, 8, 128, 8192, 128256, 1024)


def make_model(shape: LmShape, *, exact: bool) -> Any:
    """transformers' model with random weights: fp32 from a seed, or bf16 on the device."""
    from transformers import HiggsAudioV2Config, HiggsAudioV2ForConditionalGeneration

    config = HiggsAudioV2Config(**transformers_config(shape, "float32"))
    if exact:
        model = HiggsAudioV2ForConditionalGeneration(config, use_text_head=True)
        tensors = {n: torch.from_numpy(t) for n, t in random_lm_tensors(shape, 0).items()}
        model.load_state_dict(tensors, strict=True)
    else:
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(device):
            model = HiggsAudioV2ForConditionalGeneration(config, use_text_head=True)
        torch.set_default_dtype(torch.float32)
    return model.requires_grad_(False)


def make_example(length: int, shape: LmShape, placeholder: int, seed: int) -> Example:
    """A sequence of `length` positions: text, one clip, two text positions."""
    draw = torch.Generator().manual_seed(seed)
    frames = length - TEXT - 2 - shape.num_codebooks - 1
    size = shape.codebook_size
    codes = torch.randint(0, size, (shape.num_codebooks, frames), generator=draw)
    columns = delayed_columns(codes, size, size + 1)
    wanted = column_labels(codes, size + 1)
    labels = torch.full_like(wanted, -100)
    labels[:-1] = wanted[1:]
    ids = torch.randint(0, min(shape.vocab, 256), (length,), generator=draw)
    is_audio = torch.zeros(length, dtype=torch.bool)
    is_audio[TEXT : TEXT + len(columns)] = True
    ids[is_audio] = placeholder
    text_labels = torch.full_like(ids, -100)
    text_labels[-3:-1] = ids[-2:]
    text_labels[TEXT - 2] = ids[TEXT - 1]
    return Example(ids, is_audio, columns, text_labels, labels, f"random {seed}")


def make_trainer(args: argparse.Namespace, shape: LmShape, folder: str, **changes: Any) -> Trainer:
    """A trainer of random sequences, `rows` to a batch."""
    exact = bool(changes.pop("exact", False))
    model = make_model(shape, exact=exact)
    placeholder = int(model.config.audio_token_id)
    examples = [make_example(args.length, shape, placeholder, seed) for seed in range(64)]
    fields = {
        "model": "demo",
        "data": ["none"],
        "output": folder,
        "dtype": "float32" if exact else "bfloat16",
        "gradient_checkpointing": args.checkpointing,
        "compile_layers": args.compiled,
        "tensorboard": False,
        "lora": {"rank": args.rank, "dropout": 0.0 if exact else 0.05},
        "batch": {
            "max_rows": args.rows,
            "max_positions": args.rows * args.length,
            "accumulation": changes.pop("accumulation", 1),
        },
        "validation": {"share": 0.0, "every": 0},
    }
    config = parse_config(fields, "benchmark")
    return Trainer(config, model=model, loaded=Loaded(examples, [""] * 64, []))


def flops_a_position(shape: LmShape, length: int, adapters: int) -> float:
    """Of a step, see above; `adapters` are all adapter weights: each is passed by half the rest."""
    width = shape.heads * shape.head_dim
    attention = 2 * shape.hidden * width + 2 * shape.hidden * shape.kv_heads * shape.head_dim
    weights = shape.layers * (attention + 3 * shape.hidden * shape.ffn)
    weights += shape.hidden * shape.num_codebooks * (shape.codebook_size + 2)
    ffn_adapters = shape.layers * 3 * (shape.hidden + shape.ffn)  # of one network, rank one
    all_adapters = (
        shape.layers
        * (2 * (shape.hidden + width) + 2 * (shape.hidden + shape.kv_heads * shape.head_dim))
        + 2 * ffn_adapters
    )
    passed = adapters * (all_adapters - ffn_adapters) / all_adapters
    scores = 12 * shape.layers * width * length / 2
    return 4 * weights + 6 * passed + scores


def speed(args: argparse.Namespace) -> None:
    shape = SMALL if args.small else released(args.layers)
    cuda = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(args, shape, folder)
        for number in range(args.warmup):
            trainer.stepper.step(number)
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        begin = time.monotonic()
        for number in range(args.steps):
            result = trainer.stepper.step(args.warmup + number)
        if cuda:
            torch.cuda.synchronize()
        seconds = (time.monotonic() - begin) / args.steps
        world = trainer.accelerator.num_processes
        adapters = sum(p.numel() for p in trainer.stepper.parameters)
        positions = args.rows * args.length * world
        flops = flops_a_position(shape, args.length, adapters) * positions / seconds / 1e12
        report = {
            "processes": world,
            "rows": args.rows,
            "length": args.length,
            "checkpointing": args.checkpointing,
            "compiled": args.compiled,
            "rank": args.rank,
            "adapter_parameters": adapters,
            "step_seconds": round(seconds, 4),
            "positions_a_second": round(positions / seconds),
            "tflops_each": round(flops / world, 1),
            "share_of_peak": round(flops / world / args.peak, 3),
            "memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1) if cuda else None,
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "loss": None if result is None else round(result.loss, 3),
        }
        if trainer.accelerator.is_main_process:
            print(json.dumps(report), flush=True)
        trainer.close()


def gradients(args: argparse.Namespace) -> None:
    """One step's gradients, as the optimizer would see them, to a file."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    world = int(os.environ.get("WORLD_SIZE", 1))
    args.length, args.checkpointing, args.compiled = 160, False, False
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(args, SMALL, folder, exact=True, accumulation=args.world // world)
        for number, parameter in enumerate(trainer.stepper.parameters):
            if parameter.abs().max() == 0:  # B starts at zero, and A would get no gradient
                draw = torch.Generator().manual_seed(number)
                with torch.no_grad():
                    parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.05)
        found: list[torch.Tensor] = []
        move = trainer.stepper.optimizer.step

        def keep(*_: Any, **__: Any) -> None:
            found.extend(
                p.grad.cpu().clone() for p in trainer.stepper.parameters if p.grad is not None
            )

        trainer.stepper.optimizer.step = keep
        result = trainer.stepper.step(0)
        trainer.stepper.optimizer.step = move
        if trainer.accelerator.is_main_process:
            torch.save(
                {"gradients": found, "loss": None if result is None else result.loss},
                args.gradients,
            )
            print(f"{world} processes: loss {result.loss if result else None}", flush=True)
        trainer.close()


def compare(first: Path, second: Path) -> None:
    """Largest difference of the gradients, relative to their largest value."""
    a, b = (torch.load(path, weights_only=True) for path in (first, second))
    largest = max(float(g.abs().max()) for g in a["gradients"])
    apart = max(
        float((x - y).abs().max()) for x, y in zip(a["gradients"], b["gradients"], strict=True)
    )
    print(
        f"losses {a['loss']} and {b['loss']}; gradients differ by {apart / largest:.2e} of the "
        f"largest, {largest:.3e}"
    )
    if not apart <= 1e-4 * largest:
        raise SystemExit("gradients differ by more than 1e-4 of the largest")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--small", action="store_true", help="a small model, to try this program")
    parser.add_argument("--peak", type=float, default=PEAK_H200)
    parser.add_argument("--gradients", type=Path)
    parser.add_argument("--world", type=int, default=2)
    parser.add_argument("--compare", type=Path, nargs=2)
    args = parser.parse_args()
    if args.compare:
        compare(*args.compare)
    elif args.gradients:
        gradients(args)
    else:
        speed(args)


if __name__ == "__main__":
    main()
