"""A network definition executed in torch, layer by layer, without TensorRT's runtime.

What each kind of layer computes is in `semantics`.

Numbers: every floating tensor is held in `compute` (fp32 or fp64). With `rounding`, the result of
each layer is rounded once to the type that the network declares for it, as a kernel with wide
accumulation does; without, the declared types are ignored and weights are taken as the checkpoint
stores them, so that only the structure is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from build_engine.checkpoint import Weight
from build_engine.dtypes import to_float32
from build_engine.errors import BuildError, VerifyError
from build_engine.semantics import SEMANTICS, Inputs, check_rows, present
from build_engine.walk import Graph, Layer, array_of

_FLOATS = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16}


def as_tensor(weight: Weight) -> torch.Tensor:
    """A weight as torch fp32 (exact), or int32; a copy, because a mapped file is read-only."""
    if weight.dtype == "i32":
        return torch.tensor(weight.values)
    return torch.tensor(to_float32(weight.values, weight.dtype))


class Interpreter:
    """Runs a graph. `weights` holds what the builder put behind each constant layer."""

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, Weight],
        stored: Mapping[str, Weight],
        *,
        rounding: bool,
        compute: torch.dtype = torch.float32,
    ) -> None:
        """`stored`: constant layer name -> the checkpoint's own tensor, for `rounding=False`."""
        self._graph = graph
        self._weights = weights
        self._stored = stored
        self._rounding = rounding
        self._compute = compute
        self._compared: set[str] = set()
        self._last_use = {
            name: index
            for index, layer in enumerate(graph.layers)
            for name in layer.inputs
            if name is not None and name not in graph.outputs
        }

    def run(self, inputs: Mapping[str, torch.Tensor | Weight]) -> dict[str, torch.Tensor]:
        """Outputs by name. KV caches among `inputs` are updated in place, as the plan does.

        Raises BuildError for an input that is missing, or of another shape than declared.
        """
        values: dict[str, Any] = {}
        for name, (dtype, shape) in self._graph.inputs.items():
            if name not in inputs:
                raise BuildError(f"[{name}] expected an input, got none")
            given = inputs[name]
            sizes = tuple(given.values.shape if isinstance(given, Weight) else given.shape)
            matches = len(sizes) == len(shape) and all(
                want in (-1, size) for want, size in zip(shape, sizes, strict=True)
            )
            if not matches:
                raise BuildError(f"[{name}] expected {dtype} {shape}, got {sizes}")
            values[name] = given
        constants: dict[str, Layer] = {}
        for index, layer in enumerate(self._graph.layers):
            if layer.kind == "CONSTANT":
                constants[layer.outputs[0]] = layer
                continue
            arguments = self._arguments(layer, values, constants)
            result = SEMANTICS[layer.kind](layer, arguments)
            name = layer.outputs[0]
            # A cache stays the caller's own memory.
            cached = layer.kind == "KV_CACHE_UPDATE"
            values[name] = result if cached else self._rounded(result, self._graph.dtypes[name])
            for used in layer.inputs:
                if used is not None and self._last_use.get(used) == index:
                    values.pop(used, None)
        return {name: values[name] for name in self._graph.outputs}

    def _arguments(
        self, layer: Layer, values: dict[str, Any], constants: dict[str, Layer]
    ) -> Inputs:
        """The layer's inputs. Weights are widened only while a layer uses them, and of a table
        that rows are gathered from only these rows.
        """
        found: Inputs = []
        for name in reversed(layer.inputs):
            value = None if name is None else values.get(name)
            if name in constants:
                value = self._constant(constants[name])
            if isinstance(value, Weight):
                if layer.kind == "GATHER" and name == layer.inputs[0]:
                    value, found[-1] = _used_rows(layer, value, present(found, -1))
                value = self._widened(as_tensor(value))
                value = self._rounded(value, self._graph.dtypes[str(name)])
            found.append(value)
        return found[::-1]

    def _constant(self, layer: Layer) -> Weight:
        """The numbers of a constant layer, compared with the definition wherever they can be read
        back from it.
        """
        weight = self._weights.get(layer.name)
        if weight is None:
            raise VerifyError(f"[layer {layer.name}] expected a constant of the builder, got none")
        if self._graph.dtypes[layer.outputs[0]] != "BF16" and layer.name not in self._compared:
            there = np.asarray(array_of(layer.arrays["weights"]))
            if not np.array_equal(there.reshape(-1), weight.values.reshape(-1)):
                raise VerifyError(
                    f"[layer {layer.name}] expected the weight {weight.name}, got other numbers"
                )
            self._compared.add(layer.name)
        chosen = weight if self._rounding else self._stored.get(layer.name, weight)
        shape = layer.settings["shape"]
        return Weight(chosen.name, chosen.dtype, chosen.values.reshape(shape))

    def _widened(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self._compute) if x.is_floating_point() else x

    def _rounded(self, x: torch.Tensor, dtype: str) -> torch.Tensor:
        if not x.is_floating_point():
            return x
        wide = x.to(self._compute)
        if not self._rounding or (dtype == "FLOAT" and self._compute == torch.float32):
            return wide
        return wide.to(_FLOATS[dtype]).to(self._compute)


def _used_rows(layer: Layer, table: Weight, indices: torch.Tensor) -> tuple[Weight, torch.Tensor]:
    """The rows of `table` that `indices` name, and where each of them now is."""
    check_rows(layer, indices, table.values.shape[0])
    used, places = np.unique(indices.numpy(), return_inverse=True)
    rows = Weight(table.name, table.dtype, table.values[used])
    return rows, torch.from_numpy(places.reshape(indices.shape))
