"""One line of compare_transformers.py: transformers' own generate() with one number of requests.

Gets ready, says so and on what (a line of JSON), waits for a line, and says the seconds a column.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
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


def main() -> None:
    """For the process that started this one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--prompt-tokens", type=int, required=True)
    parser.add_argument("--columns", type=int, required=True)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--device", required=True)
    args = parser.parse_args()
    static = args.mode == "compiled"
    model = make_model(args.layers, args.device)
    begin = time.perf_counter()
    generate(model, args.requests, args, static)  # compiles, warms up
    ready = {
        "ready_s": time.perf_counter() - begin,
        "device": torch.cuda.get_device_name() if args.device == "cuda" else args.device,
        "torch": torch.__version__,
    }
    print(json.dumps(ready), flush=True)
    if sys.stdin.readline():
        print(json.dumps({"column": generate(model, args.requests, args, static)}), flush=True)


if __name__ == "__main__":
    main()
