"""Speed of transformers' own generate() on the shapes, prompts and sampling of higgs_bench.

    python benchmarks/compare_transformers.py [--modes eager,compiled] [--concurrency 1,16]
                                              [--json FILE] [--higgs-bench FILE]

Run it on the GPU that higgs_bench ran on, in the same session. It makes a random model of the
released dimensions (bf16) on the GPU, generates twice, and takes milliseconds a column from the
last three quarters of the second time's columns, so that the prompt, and compilation, are not
counted. "compiled" is a static cache with torch.compile, as transformers chooses by itself for
`cache_implementation="static"`; every number of requests is compiled for itself, with fixed shapes.
The codec is not part of either figure. With --higgs-bench, a JSON file of higgs_bench, it prints
the ratio to it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    HiggsAudioV2Config,
    HiggsAudioV2ForConditionalGeneration,
    StoppingCriteria,
    StoppingCriteriaList,
)

AUDIO_OUT_BOS = 128013
FRAMES_PER_SECOND = 25


class Clock(StoppingCriteria):
    """Stops nothing; notes the time behind two of the columns."""

    def __init__(self, device: str, begin: int, end: int) -> None:
        self.device, self.begin, self.end = device, begin, end
        self.columns = 0
        self.times: list[float] = []

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Called behind every column."""
        self.columns += 1
        if self.columns in (self.begin, self.end):
            if self.device == "cuda":
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def make_model(layers: int, device: str) -> Any:
    """Random model of the released dimensions; zero BOS and EOS rows, so that it does not end."""
    config = HiggsAudioV2Config(
        vocab_size=128256,
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=layers,
        num_attention_heads=24,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=2048,
        codebook_size=1026,
        num_codebooks=8,
    )
    with torch.device(device):
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        model = HiggsAudioV2ForConditionalGeneration(config)
        model.train(False)
        torch.set_default_dtype(default)
    with torch.no_grad():
        head = model.audio_lm_head.weight.view(8, 1026, -1)
        head[:, 1024:] = 0
        head[:, :1024] *= 3  # a spread of logits as trained models have
    return model


def generate(model: Any, batch: int, args: argparse.Namespace, static: bool) -> float:
    """Seconds a column of `batch` prompts, of the last three quarters of the columns."""
    torch.manual_seed(0)
    ids = torch.randint(0, 1000, (batch, args.prompt_tokens), device=args.device)
    ids[:, -1] = AUDIO_OUT_BOS
    make_config: Any = GenerationConfig  # untyped
    config = make_config(
        max_new_tokens=args.columns,
        min_new_tokens=None,
        do_sample=True,
        temperature=0.7,
        top_k=50,
        top_p=0.95,
        ras_win_len=7,
        ras_win_max_num_repeat=2,
        pad_token_id=128001,
        bos_token_id=1,
        use_cache=True,
        cache_implementation="static" if static else None,
        max_length=None,
    )
    clock = Clock(args.device, args.columns // 4, args.columns)
    model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        generation_config=config,
        stopping_criteria=StoppingCriteriaList([clock]),
    )
    if len(clock.times) < 2:
        raise SystemExit(f"expected {args.columns} columns, got {clock.columns}: an early end")
    return (clock.times[1] - clock.times[0]) / (clock.end - clock.begin)


def measure(model: Any, batch: int, args: argparse.Namespace, static: bool) -> dict[str, float]:
    """Milliseconds a column, seconds of audio a second, and how long getting ready took."""
    torch.compiler.reset()  # or shapes that differ from the last batch's become dynamic, and slower
    begin = time.perf_counter()
    generate(model, batch, args, static)  # compiles, warms up
    ready = time.perf_counter() - begin
    column = generate(model, batch, args, static)
    return {
        "ms": 1e3 * column,
        "audio_s_per_s": batch / column / FRAMES_PER_SECOND,
        "ready_s": ready,
    }


def ratio(path: Path | None, batch: int, milliseconds: float) -> str:
    """How much longer a column takes here than in a JSON file of higgs_bench."""
    if path is None:
        return ""
    for run in json.loads(path.read_text())["runs"]:
        if run["columns"]["concurrency"] == batch:
            return f"{milliseconds / (1e3 * run['columns']['column_p50']):8.2f}x"
    return "       -"


def main() -> None:
    """Prints a line per mode and concurrency."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modes", default="eager,compiled")
    parser.add_argument("--concurrency", default="1,16")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--columns", type=int, default=120)
    parser.add_argument("--layers", type=int, default=28, help="fewer only to try the script out")
    parser.add_argument("--device", default="cuda", help="cpu only to try the script out")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--higgs-bench", type=Path)
    args = parser.parse_args()
    begin = time.perf_counter()
    model = make_model(args.layers, args.device)
    results = []
    device = torch.cuda.get_device_name() if args.device == "cuda" else args.device
    print(f"model made in {time.perf_counter() - begin:.1f} s")
    print(f"{device}, torch {torch.__version__}, bf16, {args.layers} layers")
    print(
        f"{'mode':>10} {'requests':>8} {'ms a column':>12} {'audio-s/s':>10} {'ready in':>9}"
        "  against higgs_bench"
    )
    for mode in args.modes.split(","):
        for batch in map(int, args.concurrency.split(",")):
            figures = measure(model, batch, args, mode == "compiled")
            results.append({"mode": mode, "concurrency": batch, **figures})
            print(
                f"{mode:>10} {batch:>8} {figures['ms']:>12.2f} {figures['audio_s_per_s']:>10.2f}"
                f" {figures['ready_s']:>7.1f} s"
                f"  {ratio(args.higgs_bench, batch, figures['ms'])}",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps({"torch": torch.__version__, "results": results}, indent=1))


if __name__ == "__main__":
    main()
