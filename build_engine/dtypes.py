"""Element types of checkpoints and plans, and conversion between them on raw arrays.

bf16 has no numpy type: its arrays are uint16 bits, tagged `bf16` wherever they go.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from higgs_rt.checkpoint.safetensors_file import to_bfloat16_bits

DType = Literal["f32", "f16", "bf16", "i32"]
Precision = Literal["fp32", "fp16", "bf16"]
Array = npt.NDArray[Any]

STORAGE: dict[DType, npt.DTypeLike] = {
    "f32": np.float32,
    "f16": np.float16,
    "bf16": np.uint16,
    "i32": np.int32,
}
OF_PRECISION: dict[Precision, DType] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
OF_SAFETENSORS: dict[str, DType] = {"F32": "f32", "F16": "f16", "BF16": "bf16"}


def item_size(dtype: DType) -> int:
    """Bytes of one number."""
    return np.dtype(STORAGE[dtype]).itemsize


def to_float32(values: Array, dtype: DType) -> npt.NDArray[np.float32]:
    """The same numbers as fp32 (exact for every float type), same shape."""
    if dtype == "bf16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.asarray(values, np.float32)


def convert(values: Array, source: DType, target: DType) -> Array:
    """`values` as `target`, rounded to nearest with ties to even; the same object when equal."""
    if source == target:
        return values
    wide = to_float32(values, source)
    return to_bfloat16_bits(wide) if target == "bf16" else wide.astype(STORAGE[target])
