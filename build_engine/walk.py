"""Reading a built INetworkDefinition back as plain data.

Nothing here knows how the network was written: layers, their settings and the names of their
tensors come from TensorRT's own objects, so what is verified is what TensorRT was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from build_engine.checkpoint import fnv1a64
from build_engine.errors import BuildError

# LayerType member -> (class of the layer, its settings). `Any` settings are enums or numbers.
_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ACTIVATION": ("IActivationLayer", ("type",)),
    "ATTENTION_INPUT": ("IAttentionInputLayer", ()),
    "ATTENTION_OUTPUT": ("IAttentionOutputLayer", ()),
    "CAST": ("ICastLayer", ("to_type",)),
    "CONCATENATION": ("IConcatenationLayer", ("axis",)),
    "CONSTANT": ("IConstantLayer", ("shape",)),
    "CONVOLUTION": ("IConvolutionLayer", ()),
    "DECONVOLUTION": ("IDeconvolutionLayer", ()),
    "ELEMENTWISE": ("IElementWiseLayer", ("op",)),
    "GATHER": ("IGatherLayer", ("axis", "mode", "num_elementwise_dims")),
    "KV_CACHE_UPDATE": ("IKVCacheUpdateLayer", ("cache_mode",)),
    "MATRIX_MULTIPLY": ("IMatrixMultiplyLayer", ("op0", "op1")),
    "REDUCE": ("IReduceLayer", ("op", "axes", "keep_dims")),
    "ROTARY_EMBEDDING": ("IRotaryEmbeddingLayer", ("interleaved", "rotary_embedding_dim")),
    "SELECT": ("ISelectLayer", ()),
    "SHUFFLE": ("IShuffleLayer", ("zero_is_placeholder",)),
    "UNARY": ("IUnaryLayer", ("op",)),
    "UNSQUEEZE": ("IUnsqueezeLayer", ()),
}
_CONVOLUTION = (
    "kernel_size_nd",
    "num_output_maps",
    "num_groups",
    "stride_nd",
    "dilation_nd",
    "pre_padding",
    "post_padding",
)


@dataclass(frozen=True)
class Layer:
    """One layer. `inputs` and `outputs` are tensor names; an unused optional input is None."""

    name: str
    kind: str
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    settings: dict[str, Any]
    # Arrays of the layer itself: a constant's values, a convolution's kernel and bias.
    arrays: dict[str, Any]

    def describe(self) -> str:
        """All but the numbers of `arrays`, on one line."""
        return f"{self.kind} {self.name} {self.inputs} {self.outputs} {self.settings}"


@dataclass(frozen=True)
class Graph:
    """A network in an order in which every layer follows the layers that it reads."""

    layers: tuple[Layer, ...]
    # Tensor name -> (dtype name, shape with -1 for dynamic).
    inputs: dict[str, tuple[str, tuple[int, ...]]]
    outputs: tuple[str, ...]
    # Dtype name of every tensor.
    dtypes: dict[str, str]

    def hash(self) -> str:
        """The manifest's `network_hash`: of everything but the numbers of weights."""
        lines = [f"{name} {kind} {shape}" for name, (kind, shape) in sorted(self.inputs.items())]
        lines += [layer.describe() for layer in self.layers]
        lines += [f"{name} {self.dtypes[name]}" for name in sorted(self.outputs)]
        return fnv1a64(f"{line}\n".encode() for line in lines)


def _plain(value: Any) -> Any:
    """Enums as their names, shapes as tuples."""
    if isinstance(value, bool | int | float | str):
        return value
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else tuple(value)


def _arrays(layer: Any, kind: str) -> dict[str, Any]:
    if kind == "CONSTANT":
        return {"weights": layer.weights}
    if "CONVOLUTION" in kind:
        return {"kernel": layer.kernel, "bias": layer.bias}
    return {}


def _convolution(layer: Any) -> dict[str, Any]:
    """Deconvolutions of old packages have no dilation."""
    return {name: _plain(getattr(layer, name)) for name in _CONVOLUTION if hasattr(layer, name)}


def _attention(layer: Any) -> dict[str, Any]:
    attention = layer.attention
    settings = {"norm_op": _plain(attention.norm_op)}
    if hasattr(attention, "causal_kind"):
        settings["causal"] = _plain(attention.causal_kind) != "NONE"
    else:
        settings["causal"] = bool(attention.causal)
    for form in ("query_form", "key_value_form"):
        if hasattr(attention, form):
            settings[form] = _plain(getattr(attention, form))
    return settings


def _shuffle(layer: Any, rank: int) -> dict[str, Any]:
    """Unset permutations read back as 8 places in order."""
    sizes = layer.reshape_dims
    return {
        "before": tuple(layer.first_transpose)[:rank],
        "sizes": None if sizes is None or len(sizes) < 0 else tuple(sizes),
        "after": tuple(layer.second_transpose),
    }


def _read_layer(trt: Any, layer: Any) -> Layer:
    kind = str(layer.type.name)  # before the cast: some classes have a `type` of their own
    if kind not in _KINDS:
        raise BuildError(f"[layer {layer.name}] expected one of {sorted(_KINDS)}, got {kind}")
    class_name, names = _KINDS[kind]
    inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
    outputs = tuple(layer.get_output(index).name for index in range(layer.num_outputs))
    layer.__class__ = getattr(trt, class_name)
    settings = {name: _plain(getattr(layer, name)) for name in names}
    if "CONVOLUTION" in kind:
        settings |= _convolution(layer)
    if kind == "ATTENTION_OUTPUT":
        settings |= _attention(layer)
    if kind == "SHUFFLE":
        settings |= _shuffle(layer, len(inputs[0].shape))
        out = layer.get_output(0)
        settings["after"] = settings["after"][: len(out.shape)]
    return Layer(
        layer.name,
        kind,
        tuple(None if tensor is None else tensor.name for tensor in inputs),
        outputs,
        settings,
        _arrays(layer, kind),
    )


def _sorted_by_readiness(layers: list[Layer], ready: set[str]) -> tuple[Layer, ...]:
    """The order of insertion is not always one in which layers can run."""
    done: list[Layer] = []
    waiting = layers
    while waiting:
        left = []
        for layer in waiting:
            if all(name is None or name in ready for name in layer.inputs):
                done.append(layer)
                ready.update(layer.outputs)
            else:
                left.append(layer)
        if len(left) == len(waiting):
            raise BuildError(f"[layer {left[0].name}] expected inputs that exist, got a cycle")
        waiting = left
    return tuple(done)


def read_graph(trt: Any, network: Any) -> Graph:
    """All of `network`; raises BuildError for a kind of layer that is not known here."""
    inputs, dtypes = {}, {}
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        dtypes[tensor.name] = str(tensor.dtype.name)
        inputs[tensor.name] = (dtypes[tensor.name], tuple(tensor.shape))
    layers = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for place in range(layer.num_outputs):
            tensor = layer.get_output(place)
            dtypes[tensor.name] = str(tensor.dtype.name)
        layers.append(_read_layer(trt, layer))
    outputs = tuple(network.get_output(index).name for index in range(network.num_outputs))
    return Graph(_sorted_by_readiness(layers, set(inputs)), inputs, outputs, dtypes)


def array_of(value: Any) -> Any:
    """Weights read back from a layer as a numpy array; None where there are none."""
    if value is None or isinstance(value, np.ndarray):
        return value
    return value.numpy()
