"""A narrower decoder that starts from a trained wider one: the strongest channels are kept.

Much of what the wide decoder learned survives, so training on fixed codes goes on from there
instead of from noise.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def _norms(convolution: nn.Module, inputs: bool) -> torch.Tensor:
    """Weight norm of each input or output channel; transposed ones store inputs first."""
    weight: Any = convolution.weight
    axis = int(inputs != isinstance(convolution, nn.ConvTranspose1d))
    norms: torch.Tensor = weight.transpose(0, axis).flatten(1).norm(dim=1)
    return norms


def _strongest(makers: list[Any], users: list[Any], keep: int) -> torch.Tensor:
    """Indices, ascending, of the `keep` channels with the largest weights in times weights out."""
    into = torch.stack([_norms(maker, inputs=False) for maker in makers]).norm(dim=0)
    out = torch.stack([_norms(user, inputs=True) for user in users]).norm(dim=0)
    strongest: torch.Tensor = (into * out).topk(keep).indices
    return strongest.sort().values


def _copy(target: Any, source: Any, ins: torch.Tensor, outs: torch.Tensor) -> None:
    first, second = (ins, outs) if isinstance(source, nn.ConvTranspose1d) else (outs, ins)
    target.weight.copy_(source.weight[first][:, second])
    target.bias.copy_(source.bias[outs])


@torch.no_grad()
def narrow_decoder(wide: Any, narrow: Any) -> None:
    """Fills the DAC decoder `narrow` from `wide`: same strides, fewer channels everywhere."""
    every = torch.arange(wide.conv1.in_channels)
    kept = _strongest([wide.conv1], [wide.block[0].conv_t1], narrow.conv1.out_channels)
    _copy(narrow.conv1, wide.conv1, every, kept)
    followers = [block.conv_t1 for block in wide.block[1:]] + [wide.conv2]
    for block, small, follower in zip(wide.block, narrow.block, followers, strict=True):
        units = [block.res_unit1, block.res_unit2, block.res_unit3]
        stream = _strongest(
            [block.conv_t1, *(unit.conv2 for unit in units)],
            [follower, *(unit.conv1 for unit in units)],
            small.conv_t1.out_channels,
        )
        small.snake1.alpha.copy_(block.snake1.alpha[:, kept])
        _copy(small.conv_t1, block.conv_t1, kept, stream)
        for unit, little in zip(
            units, (small.res_unit1, small.res_unit2, small.res_unit3), strict=True
        ):
            inner = _strongest([unit.conv1], [unit.conv2], len(stream))
            little.snake1.alpha.copy_(unit.snake1.alpha[:, stream])
            _copy(little.conv1, unit.conv1, stream, inner)
            little.snake2.alpha.copy_(unit.snake2.alpha[:, inner])
            _copy(little.conv2, unit.conv2, inner, stream)
        kept = stream
    narrow.snake1.alpha.copy_(wide.snake1.alpha[:, kept])
    _copy(narrow.conv2, wide.conv2, kept, torch.arange(1))
