"""What each kind of layer computes, in torch: this project's reading of TensorRT's documentation.

It is what a verified network is verified under. A setting whose meaning is not written down here is
refused. Inputs are those of the layer in order, None where an optional one is not used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from build_engine.errors import BuildError, VerifyError
from build_engine.walk import Layer, array_of

Inputs = list[torch.Tensor | None]


def present(inputs: Inputs, place: int = 0) -> torch.Tensor:
    tensor = inputs[place]
    if tensor is None:
        raise BuildError(f"[interpreter] expected an input at place {place}, got none")
    return tensor


def _setting(layer: Layer, name: str, supported: Any) -> None:
    """Refuse a setting whose meaning is not written down here."""
    if layer.settings.get(name, supported) != supported:
        raise BuildError(
            f"[layer {layer.name}:{name}] expected {supported!r}, got {layer.settings[name]!r}"
        )


_ELEMENTWISE: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "SUM": torch.add,
    "SUB": torch.sub,
    "PROD": torch.mul,
    "DIV": torch.div,
    "MIN": torch.minimum,
    "MAX": torch.maximum,
    "LESS": torch.lt,
    "GREATER": torch.gt,
}
_UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "SQRT": torch.sqrt,
    "RECIP": torch.reciprocal,
    "SIN": torch.sin,
}


def _elementwise(layer: Layer, inputs: Inputs) -> torch.Tensor:
    """Broadcasts axes of size 1; both operands have one rank."""
    a, b = present(inputs, 0), present(inputs, 1)
    if a.dim() != b.dim():
        raise BuildError(f"[layer {layer.name}] expected one rank, got {a.dim()} and {b.dim()}")
    return _ELEMENTWISE[layer.settings["op"]](a, b)


def _unary(layer: Layer, inputs: Inputs) -> torch.Tensor:
    return _UNARY[layer.settings["op"]](present(inputs))


def _activation(layer: Layer, inputs: Inputs) -> torch.Tensor:
    _setting(layer, "type", "SIGMOID")
    return torch.sigmoid(present(inputs))


def _cast(layer: Layer, inputs: Inputs) -> torch.Tensor:
    """Between float types only: the rounding that follows every layer does the work."""
    if layer.settings["to_type"] not in ("FLOAT", "HALF", "BF16"):
        raise BuildError(f"[layer {layer.name}] expected a cast to a float type")
    return present(inputs)


def _concatenation(layer: Layer, inputs: Inputs) -> torch.Tensor:
    return torch.cat(
        [present(inputs, place) for place in range(len(inputs))], layer.settings["axis"]
    )


def check_rows(layer: Layer, indices: torch.Tensor, rows: int) -> None:
    """An index outside of the axis is undefined, so refused."""
    if indices.numel() and (int(indices.min()) < 0 or int(indices.max()) >= rows):
        raise VerifyError(
            f"[layer {layer.name}] expected indices in [0, {rows}), got "
            f"{int(indices.min())}..{int(indices.max())}"
        )


def _gather(layer: Layer, inputs: Inputs) -> torch.Tensor:
    """DEFAULT mode: indices replace `axis`."""
    _setting(layer, "mode", "DEFAULT")
    _setting(layer, "axis", 0)
    _setting(layer, "num_elementwise_dims", 0)
    data, indices = present(inputs, 0), present(inputs, 1)
    check_rows(layer, indices, data.shape[0])
    return data[indices.long()]


def _select(layer: Layer, inputs: Inputs) -> torch.Tensor:
    return torch.where(present(inputs, 0), present(inputs, 1), present(inputs, 2))


def _shuffle(layer: Layer, inputs: Inputs) -> torch.Tensor:
    """Transpose, reshape (0 copies the axis of the transposed input, -1 is inferred), transpose."""
    _setting(layer, "zero_is_placeholder", True)
    x = present(inputs)
    if layer.settings["before"]:
        x = x.permute(layer.settings["before"])
    if layer.settings["sizes"] is not None:
        sizes = [
            x.shape[axis] if size == 0 else size
            for axis, size in enumerate(layer.settings["sizes"])
        ]
        x = x.reshape(sizes)
    return x.permute(layer.settings["after"]) if layer.settings["after"] else x


def _unsqueeze(layer: Layer, inputs: Inputs) -> torch.Tensor:
    """Axes count in the result."""
    x = present(inputs, 0)
    for axis in sorted(int(axis) for axis in present(inputs, 1)):
        x = x.unsqueeze(axis)
    return x


def _reduce(layer: Layer, inputs: Inputs) -> torch.Tensor:
    """`axes` is a bit mask."""
    mask = layer.settings["axes"]
    axes = [axis for axis in range(present(inputs).dim()) if mask >> axis & 1]
    reduce = {"SUM": torch.sum, "AVG": torch.mean}[layer.settings["op"]]
    return reduce(present(inputs), dim=axes, keepdim=layer.settings["keep_dims"])


def _matrix_multiply(layer: Layer, inputs: Inputs) -> torch.Tensor:
    """op0(a) op1(b) over the last two axes; leading axes broadcast; wide accumulation."""
    operands = []
    for place, op in enumerate((layer.settings["op0"], layer.settings["op1"])):
        x = present(inputs, place)
        if op not in ("NONE", "TRANSPOSE"):
            raise BuildError(f"[layer {layer.name}] expected NONE or TRANSPOSE, got {op}")
        operands.append(x.transpose(-1, -2) if op == "TRANSPOSE" else x)
    if operands[0].dim() != operands[1].dim():
        raise BuildError(f"[layer {layer.name}] expected operands of one rank")
    return torch.matmul(*operands)


def _rotary(layer: Layer, inputs: Inputs) -> torch.Tensor:
    """x [B, N, S, D], cos and sin [positions, D/2], position [B, S]. Pairs are (i, i + D/2) unless
    `interleaved`; dimension 0 means all of D. low' = low cos - high sin, high' = high cos + low
    sin.
    """
    _setting(layer, "interleaved", False)
    _setting(layer, "rotary_embedding_dim", 0)
    x, position = present(inputs, 0), present(inputs, 3).long()
    cos, sin = (present(inputs, place)[position][:, None] for place in (1, 2))
    low, high = x.chunk(2, -1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)


def _kv_cache_update(layer: Layer, inputs: Inputs) -> torch.Tensor:
    """LINEAR: cache[b, :, w[b] + s] = update[b, :, s], in place. Writes beyond the cache's end are
    ignored by TensorRT; the plan's callers never make one, so it is refused here.
    """
    _setting(layer, "cache_mode", "LINEAR")
    cache, update, write = (present(inputs, place) for place in range(3))
    length = update.shape[2]
    for slot, first in enumerate(write.tolist()):
        if not 0 <= first <= cache.shape[2] - length:
            raise VerifyError(
                f"[layer {layer.name}] expected write_index in [0, {cache.shape[2] - length}], "
                f"got {first} for slot {slot}"
            )
        cache[slot, :, first : first + length] = update[slot].to(cache.dtype)
    return cache


def _attention_input(layer: Layer, inputs: Inputs) -> torch.Tensor:
    """q, k, v, mask, quantisation scale, query_lengths, key_value_lengths; the whole attention is
    computed here and its output layer passes it on.

    softmax(q k^T) v per head, without any scale; query head h reads key/value head h / (Hq / Hk).
    A key counts where the bool mask [B|1, Hq|1, S, M] is true and its place is below the slot's
    key_value_lengths [B]. Softmax in wide arithmetic.
    """
    if any(extra is not None for extra in (inputs + [None] * 7)[4:6]):
        raise BuildError(f"[layer {layer.name}] expected neither scales nor query lengths")
    q, k, v = (present(inputs, place) for place in range(3))
    group = q.shape[1] // k.shape[1]
    k, v = (x.to(q.dtype).repeat_interleave(group, 1) for x in (k, v))
    scores = q @ k.transpose(-1, -2)
    allowed = torch.ones(1, 1, 1, k.shape[2], dtype=torch.bool)
    mask, lengths = inputs[3], inputs[6] if len(inputs) > 6 else None
    if mask is not None:
        allowed = allowed & mask
    if lengths is not None:
        places = torch.arange(k.shape[2])
        allowed = allowed & (places < lengths[:, None])[:, None, None, :]
    return scores.masked_fill(~allowed, float("-inf")).softmax(-1) @ v


def _attention_output(layer: Layer, inputs: Inputs) -> torch.Tensor:
    _setting(layer, "norm_op", "SOFTMAX")
    _setting(layer, "causal", False)
    _setting(layer, "query_form", "PADDED_BHND")
    _setting(layer, "key_value_form", "PADDED_BHND")
    return present(inputs)


def _kernel(layer: Layer, x: torch.Tensor, shape: tuple[int, ...]) -> tuple[Any, Any]:
    kernel = torch.tensor(array_of(layer.arrays["kernel"]), dtype=x.dtype).reshape(shape)
    bias = array_of(layer.arrays["bias"])
    return kernel, None if bias is None or bias.size == 0 else torch.tensor(bias, dtype=x.dtype)


def _convolution(layer: Layer, inputs: Inputs) -> torch.Tensor:
    """Cross-correlation of x [N, C, 1, T] with the kernel [O, C, 1, K], zeros around."""
    _setting(layer, "num_groups", 1)
    x = present(inputs)
    outputs, size = layer.settings["num_output_maps"], layer.settings["kernel_size_nd"]
    kernel, bias = _kernel(layer, x, (outputs, x.shape[1], *size))
    pads = zip(layer.settings["pre_padding"], layer.settings["post_padding"], strict=True)
    # torch lists the last axis first.
    padding = [side for pair in reversed(list(pads)) for side in pair]
    return torch.nn.functional.conv2d(
        torch.nn.functional.pad(x, padding),
        kernel,
        bias,
        stride=layer.settings["stride_nd"],
        dilation=layer.settings["dilation_nd"],
    )


def _deconvolution(layer: Layer, inputs: Inputs) -> torch.Tensor:
    """Transposed convolution, kernel [C, O, 1, K]: the full result (T - 1) stride + K, cut by
    pre_padding in front and post_padding behind; they may differ.
    """
    _setting(layer, "num_groups", 1)
    x = present(inputs)
    outputs, size = layer.settings["num_output_maps"], layer.settings["kernel_size_nd"]
    kernel, bias = _kernel(layer, x, (x.shape[1], outputs, *size))
    full = torch.nn.functional.conv_transpose2d(x, kernel, bias, stride=layer.settings["stride_nd"])
    before, after = layer.settings["pre_padding"], layer.settings["post_padding"]
    rows, columns = full.shape[2], full.shape[3]
    return full[:, :, before[0] : rows - after[0], before[1] : columns - after[1]]


SEMANTICS: dict[str, Callable[[Layer, Inputs], torch.Tensor]] = {
    "ACTIVATION": _activation,
    "ATTENTION_INPUT": _attention_input,
    "ATTENTION_OUTPUT": _attention_output,
    "CAST": _cast,
    "CONCATENATION": _concatenation,
    "CONVOLUTION": _convolution,
    "DECONVOLUTION": _deconvolution,
    "ELEMENTWISE": _elementwise,
    "GATHER": _gather,
    "KV_CACHE_UPDATE": _kv_cache_update,
    "MATRIX_MULTIPLY": _matrix_multiply,
    "REDUCE": _reduce,
    "ROTARY_EMBEDDING": _rotary,
    "SELECT": _select,
    "SHUFFLE": _shuffle,
    "UNARY": _unary,
    "UNSQUEEZE": _unsqueeze,
}
