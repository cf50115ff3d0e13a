"""Time, size and memory of building a TensorRT plan of the released dimensions.

    python benchmarks/tensorrt_build.py --scratch DIR [--layers 28] [--weights constants,inputs]
                                        [--targets sm89] [--verify] [--json FILE]

Writes a random bf16 checkpoint (11 GB with 28 layers) to DIR, builds its decoder in a process of
its own for each way of holding weights, and removes both. Memory is sampled from /proc: anonymous
is what the build itself takes, resident also counts the pages of the checkpoint that are mapped.
With --verify, `build_engine verify` then compares the networks with the native engine (few layers:
it computes in fp64).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from higgs_rt.checkpoint.names import original_name
from higgs_rt.checkpoint.random_checkpoint import LmShape, original_config
from higgs_rt.checkpoint.safetensors_file import to_bfloat16_bits

RELEASED = LmShape(3072, 28, 24, 8, 128, 8192, 128256, 1024)


def tensor_shapes(shape: LmShape) -> dict[str, tuple[int, ...]]:
    """Names of the original layout, without the text head, which a plan does not use."""
    hidden, ffn = shape.hidden, shape.ffn
    q_dim, kv_dim = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    rows = shape.num_codebooks * (shape.codebook_size + 2)
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (shape.vocab, hidden),
        "model.embed_audio_tokens.embed_audio_tokens.weight": (rows, hidden),
        "model.norm.weight": (hidden,),
        "audio_lm_head.weight": (rows, hidden),
    }
    for layer in range(shape.layers):
        name = f"model.layers.{layer}."
        for part, dims in (("q", q_dim), ("k", kv_dim), ("v", kv_dim)):
            found[f"{name}self_attn.{part}_proj.weight"] = (dims, hidden)
        found[f"{name}self_attn.o_proj.weight"] = (hidden, q_dim)
        for modality in ("", "audio_"):
            for norm in ("input_layernorm", "post_attention_layernorm"):
                found[f"{name}{modality}{norm}.weight"] = (hidden,)
            for part in ("gate", "up"):
                found[f"{name}{modality}mlp.{part}_proj.weight"] = (ffn, hidden)
            found[f"{name}{modality}mlp.down_proj.weight"] = (hidden, ffn)
    return {original_name(name): dims for name, dims in found.items()}


def write_checkpoint(directory: Path, shape: LmShape) -> int:
    """Numbers repeat after 64 Mi, at another place in every tensor: TensorRT stores equal constants
    once, so none may be equal. Returns the file's size.
    """
    rng = np.random.default_rng(1)
    numbers = rng.standard_normal(1 << 26, dtype=np.float32) * np.float32(0.02)
    block = to_bfloat16_bits(numbers)
    del numbers
    gains = to_bfloat16_bits(rng.uniform(0.6, 1.5, 1 << 20).astype(np.float32))
    header: dict[str, Any] = {}
    offset = 0
    shapes = tensor_shapes(shape)
    for name, dims in shapes.items():
        size = 2 * int(np.prod(dims))
        header[name] = {
            "dtype": "BF16",
            "shape": list(dims),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(original_config(shape, "bfloat16")))
    path = directory / "model.safetensors"
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for index, dims in enumerate(shapes.values()):
            source = block if len(dims) > 1 else gains
            left, begin = int(np.prod(dims)), (index * 7919) % source.size
            while left:
                part = source[begin : begin + left]
                file.write(part.data)
                left, begin = left - part.size, 0
    return path.stat().st_size


def memory_of(process: int) -> dict[str, int]:
    """Bytes now, {} when the process has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in lines)
    return {
        name: int(fields[key].split()[0]) << 10
        for name, key in (("anonymous", "RssAnon"), ("resident", "VmRSS"))
        if key in fields
    }


def measure(
    model: Path, output: Path, weights: str, targets: str, positions: int
) -> dict[str, Any]:
    """Build once and watch the process."""
    command = [sys.executable, "-m", "build_engine", "--model", str(model), "--output", str(output)]
    command += ["--component", "decoder", "--weights", weights, "--targets", targets]
    command += ["--max-seq-len", str(positions)]
    started = time.monotonic()
    peak: dict[str, int] = {}
    with subprocess.Popen([*command, "--no-memory-check"]) as process:
        while process.poll() is None:
            for name, value in memory_of(process.pid).items():
                peak[name] = max(peak.get(name, 0), value)
            time.sleep(0.2)
    if process.returncode != 0:
        raise SystemExit(f"[tensorrt_build] expected a plan, got exit status {process.returncode}")
    return {
        "weights": weights,
        "targets": targets,
        "seconds": round(time.monotonic() - started, 1),
        "plan_gb": round((output / "decoder.plan").stat().st_size / 1e9, 3),
        "peak_anonymous_gb": round(peak["anonymous"] / 1e9, 2),
        "peak_resident_gb": round(peak["resident"] / 1e9, 2),
    }


def main() -> None:
    """Print one JSON object per build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--layers", type=int, default=RELEASED.layers)
    parser.add_argument("--weights", default="inputs,constants")
    parser.add_argument("--targets", default="current")
    parser.add_argument("--max-seq-len", type=int, default=4096)
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    shape = LmShape(**{**vars(RELEASED), "layers": options.layers})
    results = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        model = Path(scratch) / "model"
        size = write_checkpoint(model, shape)
        print(f"checkpoint of {size / 1e9:.2f} GB, {shape.layers} layers", flush=True)
        for weights in options.weights.split(","):
            output = Path(scratch) / "plans"
            positions = options.max_seq_len
            results.append(measure(model, output, weights, options.targets, positions))
            print(json.dumps(results[-1]), flush=True)
            if options.verify:
                verify = [sys.executable, "-m", "build_engine", "verify", str(output)]
                subprocess.run([*verify, "--model", str(model)], check=True)
            shutil.rmtree(output)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
