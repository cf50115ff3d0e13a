"""A training step replayed as one CUDA graph.

Small models are bound by kernel launches: an eager step of the demo models issues some thousand
kernels of a few microseconds each. Replaying a captured step removes that cost. All inputs of the
step must live in tensors that keep their address; on the CPU the step simply runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

Metrics = dict[str, torch.Tensor]


class GraphedStep:
    """Captures `step` on its first CUDA call (after `warmup` eager runs), then replays it.

    `step` must zero its gradients with ``set_to_none=True``, keep shapes fixed, read all inputs
    from static tensors and return static output tensors. `pool` may be shared by steps that never
    overlap. The warm-up runs are real optimisation steps.
    """

    def __init__(
        self,
        step: Callable[[], Metrics],
        device: torch.device,
        warmup: int = 3,
        pool: Any = None,
    ) -> None:
        self._step = step
        self._graph: torch.cuda.CUDAGraph | None = None
        self._metrics: Metrics = {}
        if device.type != "cuda":
            return
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(warmup):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            self._metrics = step()
        self._graph = graph

    def __call__(self) -> Metrics:
        """Runs one step; the returned tensors are overwritten by the next call."""
        if self._graph is None:
            return self._step()
        self._graph.replay()
        return self._metrics


def make_adamw(
    parameters: Iterable[torch.nn.Parameter],
    device: torch.device,
    betas: tuple[float, float],
    weight_decay: float,
) -> tuple[torch.optim.AdamW, torch.Tensor]:
    """AdamW whose learning rate is a tensor, so that a captured step can follow a schedule.

    Returns the optimizer and its learning-rate tensor: fill that in place before each step.
    """
    lr = torch.zeros((), device=device)
    optimizer = torch.optim.AdamW(
        list(parameters),
        lr=lr,
        betas=betas,
        weight_decay=weight_decay,
        fused=True,
        capturable=device.type == "cuda",
    )
    return optimizer, lr


def restore(optimizer: torch.optim.AdamW, lr: torch.Tensor, state: dict[str, Any] | None) -> None:
    """Puts the moments of an earlier run (``state["optimizer"]``, its `state_dict()`) into an
    optimizer of `make_adamw`, before its step is captured; nothing without a state.
    """
    if state is None:
        return
    optimizer.load_state_dict(state["optimizer"])
    for group in optimizer.param_groups:
        group["lr"] = lr


def clip_gradients(parameters: list[torch.nn.Parameter], limit: float) -> torch.Tensor:
    """Scales all gradients to a joint norm of at most `limit`; returns the norm before, without
    sync.
    """
    return torch.nn.utils.clip_grad_norm_(parameters, limit, foreach=True)
