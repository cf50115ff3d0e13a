"""transformers' decoder over a training batch, written out: text positions first, audio after.

As in the native engine, the residual stream keeps the positions of a kind together, so DualFFN
routing is two slices; only the attention sees the batch's own order. transformers' forward finds
the positions of a kind by a mask in every layer, which waits for the device and adds up gradients
row by row, and knows audio positions by their ids only, of which it knows those of audio output.
Rows are padded on the right and attention is causal, so nothing that counts sees padding and no
mask is needed. A test compares values and gradients with transformers' own forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from higgs_rt.training.lora.examples import Batch


@dataclass(frozen=True)
class Route:
    """Where the B * L positions of a batch are: R rows, those of text first.

    position int64 [R]: the flat position of a row; row int64 [B * L]: the row of a flat position;
    sizes: how many rows are text and how many audio; shape: (B, L).
    """

    position: Tensor
    row: Tensor
    sizes: list[int]
    shape: tuple[int, int]

    @staticmethod
    def of(is_audio: Tensor) -> Route:
        """Of a batch's is_audio, bool [B, L]; both kinds keep their order."""
        flat = is_audio.flatten()
        text, audio = (~flat).nonzero()[:, 0], flat.nonzero()[:, 0]
        position = torch.cat([text, audio])
        row = torch.empty_like(position)
        row[position] = torch.arange(len(position), device=position.device)
        batch, length = is_audio.shape
        return Route(position, row, [len(text), len(audio)], (batch, length))


class _Reordered(torch.autograd.Function):
    """x [R, ...] in the order `index`, a permutation; its gradient in the inverse order.

    (The gradient of plain indexing adds up rows, which is slow, as it cannot know that none meet.)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return grads[0].index_select(0, inverse), None, None


def _reordered(x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
    result: Tensor = _Reordered.apply(x, index, inverse)  # type: ignore[no-untyped-call]
    return result


Layer = Callable[[Any, Tensor, Route, tuple[Tensor, Tensor]], Tensor]


def hidden_states(model: Any, batch: Batch, run: Layer | None = None) -> tuple[Tensor, Route]:
    """Final hidden states of transformers' model (with or without peft), [R, H] by `Route`.

    `run` is `decoder_layer`, maybe compiled.
    """
    run = decoder_layer if run is None else run
    inner = model.model
    route = Route.of(batch.is_audio)
    text_ids = batch.ids.flatten()[route.position[: route.sizes[0]]]
    text = inner.embed_tokens(text_ids)
    audio = inner.embed_audio_tokens(batch.columns).to(text.dtype)
    x = torch.cat([text, audio])
    positions = torch.arange(route.shape[1], device=x.device)[None]
    rotary = inner.rotary_emb(x, positions)
    for layer in inner.layers:
        if getattr(layer, "gradient_checkpointing", False) and layer.training:
            x = checkpoint(run, layer, x, route, rotary, use_reentrant=False)
        else:
            x = run(layer, x, route, rotary)
    return _norm(inner.norm, x), route


def decoder_layer(layer: Any, x: Tensor, route: Route, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """One decoder layer on rows x [R, H]."""
    text, audio = torch.split(x, route.sizes)
    normed = torch.cat(
        [_norm(layer.input_layernorm, text), _norm(layer.audio_input_layernorm, audio)]
    )
    mixed = _attention(
        layer.self_attn, _reordered(normed, route.row, route.position), route, rotary
    )
    x = x + _reordered(mixed, route.position, route.row)
    text, audio = torch.split(x, route.sizes)
    text = _with_feed_forward(text, layer.post_attention_layernorm, layer.mlp)
    audio = _with_feed_forward(audio, layer.audio_post_attention_layernorm, layer.audio_mlp)
    return torch.cat([text, audio])


def _with_feed_forward(x: Tensor, norm: Any, mlp: Any) -> Tensor:
    """x [R, H] of one kind, and what its feed-forward network adds."""
    gate, up = _projected([mlp.gate_proj, mlp.up_proj], _norm(norm, x))
    return x + _projected([mlp.down_proj], mlp.act_fn(gate) * up)[0]


def _projected(modules: Sequence[Any], x: Tensor) -> list[Tensor]:
    """What projections make of one x [R, in], with peft's adapters where all or none have them.

    The sum is peft's, `base + scale B A dropout(x)`, but projections of one x share its dropout and
    one product with all their A, and the product with B adds to the base's output in place: peft's
    own forward passes over the wide tensors of a large model three times as often.
    """
    results = [getattr(module, "base_layer", module)(x) for module in modules]
    if not hasattr(modules[0], "lora_A"):
        return results
    adapter = modules[0].active_adapters[0]
    down = torch.cat([module.lora_A[adapter].weight for module in modules])
    low = F.linear(modules[0].lora_dropout[adapter](x), down) * modules[0].scaling[adapter]
    for result, part, module in zip(results, low.chunk(len(modules), 1), modules, strict=True):
        result.addmm_(part, module.lora_B[adapter].weight.to(result.dtype).t())
    return results


def _attention(attention: Any, x: Tensor, route: Route, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Causal attention of the batch's rows; x [B * L, H], in the batch's order, and the result."""
    shape = (*route.shape, -1, attention.head_dim)
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    q, k, v = (one.view(shape).transpose(1, 2) for one in _projected(projections, x))
    mixed = F.scaled_dot_product_attention(
        _rotated(q, *rotary),
        _rotated(k, *rotary),
        v,
        dropout_p=attention.attention_dropout if attention.training else 0.0,
        is_causal=True,
        scale=attention.scaling,
        enable_gqa=True,
    )
    return _projected([attention.o_proj], mixed.transpose(1, 2).flatten(2).flatten(0, 1))[0]


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B, heads, L, D] turned by its position; cos, sin [1, L, D]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat([-second, first], dim=-1) * sin[:, None]


def _norm(norm: Any, x: Tensor) -> Tensor:
    """RMS norm in fp32, rounded once to x's dtype (autocast would leave it in fp32)."""
    with torch.autocast(x.device.type, enabled=False):
        weight = norm.weight.to(x.dtype)
        return F.rms_norm(x, weight.shape, weight, norm.variance_epsilon)
