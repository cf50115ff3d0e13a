"""A thin layer over INetworkDefinition: named layers, constants that stay alive, short operators.

Tensors are the package's ITensor objects (`Any`: the packages carry no types). Every layer has a
unique name; `Definition.weights` maps the names of constant layers to the arrays behind them,
because a bf16 constant cannot be read back from the definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from build_engine.backend import Package
from build_engine.checkpoint import Weight
from build_engine.dtypes import Array, DType
from build_engine.errors import BuildError

Tensor = Any
Shape = Sequence[int | str]


class Definition:
    """One network under construction. Dimensions given as texts are dynamic."""

    def __init__(self, package: Package, builder: Any, weights_as_inputs: bool = False) -> None:
        """An empty, strongly typed network."""
        self.package = package
        self.trt = package.trt
        flags = self.trt.NetworkDefinitionCreationFlag
        typed = 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0
        self.network = builder.create_network(typed)
        self.weights: dict[str, Weight] = {}
        # The checkpoint's own tensor behind a constant layer, before its conversion.
        self.stored: dict[str, Weight] = {}
        self.inputs: dict[str, tuple[DType, tuple[int | str, ...]]] = {}
        self.outputs: dict[str, tuple[DType, tuple[int | str, ...]]] = {}
        # Kernels and biases of convolutions.
        self.kernels: list[Array] = []
        self.weight_inputs: dict[str, tuple[Weight, DType]] = {}
        self._weights_as_inputs = weights_as_inputs
        self._names: dict[str, int] = {}
        self._last_name = ""
        self._scalars: dict[tuple[DType, int, float], Tensor] = {}
        self._types = {
            "f32": self.trt.float32,
            "f16": self.trt.float16,
            "bf16": self.trt.bfloat16,
            "i32": self.trt.int32,
        }
        self._dtypes = {value: name for name, value in self._types.items()}

    # --- Bindings and constants ---------------------------------------------------------------

    def input(self, name: str, dtype: DType, shape: Shape) -> Tensor:
        """A network input; texts in `shape` are the names of dynamic dimensions."""
        self.inputs[name] = (dtype, tuple(shape))
        sizes = tuple(-1 if isinstance(size, str) else size for size in shape)
        return self._checked(self.network.add_input(name, self._types[dtype], sizes), name)

    def output(self, tensor: Tensor, name: str, dtype: DType, shape: Shape) -> None:
        """Mark `tensor` as the network output `name`."""
        tensor.name = name
        self.network.mark_output(tensor)
        self.outputs[name] = (dtype, tuple(shape))

    def constant(self, weight: Weight, leading: int = 0) -> Tensor:
        """`weight` as a constant, with `leading` axes of size 1 in front.

        The array must not change until the build ends; it is kept alive and never copied.
        """
        values = np.ascontiguousarray(weight.values)
        weights = self.trt.Weights(self._types[weight.dtype], values.ctypes.data, values.size)
        shape = (1,) * leading + values.shape
        layer = self.network.add_constant(shape, weights)
        name = self._name(layer, weight.name)
        self.weights[name] = Weight(weight.name, weight.dtype, values.reshape(shape))
        return layer.get_output(0)

    def parameter(self, weight: Weight, dtype: DType, leading: int = 0) -> Tensor:
        """A model weight as `dtype`: a constant, or with weights as inputs an input of its name.

        An input keeps the stored weight: whoever binds it converts it.
        """
        if not self._weights_as_inputs:
            tensor = self.constant(weight.as_dtype(dtype), leading)
            self.stored[self._last_name] = weight
            return tensor
        if weight.name in self.weight_inputs:
            raise BuildError(f"[{weight.name}] expected one use of each weight, got two")
        self.weight_inputs[weight.name] = (weight, dtype)
        shape = weight.values.shape
        tensor = self._checked(
            self.network.add_input(weight.name, self._types[dtype], shape), weight.name
        )
        if leading == 0:
            return tensor
        return self.reshape(tensor, (1,) * leading + shape, f"{weight.name}.rank")

    def array(self, name: str, values: Array, dtype: DType) -> Tensor:
        """A constant that belongs to the network itself, not to the checkpoint."""
        return self.constant(Weight(name, dtype, values))

    def scalar(self, value: float, rank: int, dtype: DType = "f32") -> Tensor:
        """A constant of one number that broadcasts against `rank` axes; one layer per value."""
        key = (dtype, rank, value)
        if key not in self._scalars:
            kind = np.int32 if dtype == "i32" else np.float32
            self._scalars[key] = self.array("scalar", np.full((1,) * rank, value, kind), dtype)
        return self._scalars[key]

    # --- Operators ----------------------------------------------------------------------------

    def elementwise(self, a: Tensor, b: Tensor, operation: str, name: str) -> Tensor:
        """`operation`: a member of ElementWiseOperation."""
        kind = getattr(self.trt.ElementWiseOperation, operation)
        return self._output(self.network.add_elementwise(a, b, kind), name)

    def add(self, a: Tensor, b: Tensor, name: str) -> Tensor:
        """a + b."""
        return self.elementwise(a, b, "SUM", name)

    def multiply(self, a: Tensor, b: Tensor, name: str) -> Tensor:
        """a * b."""
        return self.elementwise(a, b, "PROD", name)

    def unary(self, x: Tensor, operation: str, name: str) -> Tensor:
        """`operation`: a member of UnaryOperation."""
        kind = getattr(self.trt.UnaryOperation, operation)
        return self._output(self.network.add_unary(x, kind), name)

    def sigmoid(self, x: Tensor, name: str) -> Tensor:
        """1 / (1 + exp(-x))."""
        kind = self.trt.ActivationType.SIGMOID
        return self._output(self.network.add_activation(x, kind), name)

    def cast(self, x: Tensor, dtype: DType, name: str) -> Tensor:
        """x as `dtype`; x itself when it is that already."""
        if self._dtypes.get(x.dtype) == dtype:
            return x
        return self._output(self.network.add_cast(x, self._types[dtype]), name)

    def reduce(self, x: Tensor, operation: str, axis: int, keep: bool, name: str) -> Tensor:
        """SUM or AVG over one axis."""
        kind = getattr(self.trt.ReduceOperation, operation)
        return self._output(self.network.add_reduce(x, kind, 1 << axis, keep), name)

    def gather(self, x: Tensor, indices: Tensor, name: str) -> Tensor:
        """Rows of x along axis 0: [indices..., x.shape[1:]...]."""
        return self._output(self.network.add_gather(x, indices, 0), name)

    def select(self, condition: Tensor, a: Tensor, b: Tensor, name: str) -> Tensor:
        """condition ? a : b, with broadcasting."""
        return self._output(self.network.add_select(condition, a, b), name)

    def concatenate(self, tensors: Sequence[Tensor], axis: int, name: str) -> Tensor:
        """Tensors one behind the other along `axis`."""
        layer = self.network.add_concatenation(list(tensors))
        layer.axis = axis
        return self._output(layer, name)

    def unsqueeze(self, x: Tensor, axes: Sequence[int], name: str) -> Tensor:
        """x with axes of size 1 at these places of the result."""
        places = self.array(f"{name}.axes", np.array(axes, np.int32), "i32")
        return self._output(self.network.add_unsqueeze(x, places), name)

    def reshape(
        self,
        x: Tensor,
        sizes: Sequence[int],
        name: str,
        before: Sequence[int] | None = None,
        after: Sequence[int] | None = None,
    ) -> Tensor:
        """Permute by `before`, reshape to `sizes` (0 keeps an axis, one -1), permute by `after`."""
        layer = self.network.add_shuffle(x)
        if before is not None:
            layer.first_transpose = self.trt.Permutation(list(before))
        layer.reshape_dims = tuple(sizes)
        if after is not None:
            layer.second_transpose = self.trt.Permutation(list(after))
        return self._output(layer, name)

    def linear(self, x: Tensor, weight: Tensor, name: str) -> Tensor:
        """x weight^T over the last axis; both of one rank."""
        operation = self.trt.MatrixOperation
        layer = self.network.add_matrix_multiply(x, operation.NONE, weight, operation.TRANSPOSE)
        return self._output(layer, name)

    def rotary(
        self, x: Tensor, tables: tuple[Tensor, Tensor], position: Tensor, name: str
    ) -> Tensor:
        """x [B, heads, S, D] turned by `position` [B, S]; pairs are (i, i + D / 2)."""
        layer = self.network.add_rotary_embedding(x, tables[0], tables[1], False, 0)
        layer.set_input(3, position)
        return self._output(layer, name)

    def cache_update(self, cache: Tensor, update: Tensor, write_index: Tensor, name: str) -> Tensor:
        """The cache with `update` [B, heads, S, D] written from `write_index` [B] on."""
        layer = self.network.add_kv_cache_update(
            cache, update, write_index, self.trt.KVCacheMode.LINEAR
        )
        return self._output(layer, name)

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, kv_length: Tensor, name: str
    ) -> Tensor:
        """softmax(q k^T masked) v. The layer has no scale, so q is scaled before.

        Falls back to single layers where no fused kernel exists (`decomposable`).
        """
        norm = self.trt.AttentionNormalizationOp.SOFTMAX
        if self.package.attention_lengths:
            none = self.trt.CausalMaskKind.NONE
            layer = self.network.add_attention_v2(q, k, v, norm, none)
            self._checked(layer, name)
            layer.key_value_lengths = kv_length
        else:
            layer = self._checked(self.network.add_attention(q, k, v, norm, False), name)
        layer.mask = mask
        layer.decomposable = True
        return self._output(layer, name)

    def convolution(
        self, x: Tensor, weight: Array, bias: Array, *, dilation: int, padding: int, name: str
    ) -> Tensor:
        """x [N, C, 1, T], weight [O, C, K] and bias [O] fp32, zeros on both sides."""
        layer = self.network.add_convolution_nd(
            x, weight.shape[0], (1, weight.shape[2]), *self._kernel(weight, bias)
        )
        output = self._output(layer, name)
        layer.padding_nd = (0, padding)
        layer.dilation_nd = (1, dilation)
        return output

    def deconvolution(
        self,
        x: Tensor,
        weight: Array,
        bias: Array,
        *,
        stride: int,
        padding: tuple[int, int],
        name: str,
    ) -> Tensor:
        """x [N, C, 1, T], weight [C, O, K]; `padding` is what is cut off in front and behind."""
        layer = self.network.add_deconvolution_nd(
            x, weight.shape[1], (1, weight.shape[2]), *self._kernel(weight, bias)
        )
        output = self._output(layer, name)
        layer.stride_nd = (1, stride)
        layer.pre_padding = (0, padding[0])
        layer.post_padding = (0, padding[1])
        return output

    def _kernel(self, weight: Array, bias: Array) -> tuple[Any, Any]:
        """Both as fp32 Weights over arrays that stay alive."""
        made = []
        for values in (weight, bias):
            array = np.ascontiguousarray(values, np.float32)
            self.kernels.append(array)
            made.append(self.trt.Weights(self.trt.float32, array.ctypes.data, array.size))
        return made[0], made[1]

    # --- Names --------------------------------------------------------------------------------

    def _checked(self, made: Any, name: str) -> Any:
        """TensorRT answers None to what it refuses, after a message to its logger."""
        if made is None:
            raise BuildError(f"[{name}] expected a layer, got a refusal by {self.package.backend}")
        return made

    def _name(self, layer: Any, name: str) -> str:
        self._checked(layer, name)
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        unique = name if count == 0 else f"{name}#{count}"
        layer.name = unique
        self._last_name = unique
        return unique

    def _output(self, layer: Any, name: str) -> Tensor:
        unique = self._name(layer, name)
        tensor = layer.get_output(0)
        tensor.name = unique
        return tensor
