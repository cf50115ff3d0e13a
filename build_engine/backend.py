"""The installed TensorRT or TensorRT for RTX, and what it can do.

Both packages have one Python API; a builder asks the objects for a capability instead of comparing
version strings.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from build_engine.errors import BuildError

Backend = Literal["tensorrt", "tensorrt_rtx"]

_MODULES: dict[str, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    # The full package re-exports the bindings; its `_bindings` wheel alone is enough.
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_EXTRAS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
# Layers without which this network cannot be written; both came with TensorRT 10.15.
_NEEDED = ("add_kv_cache_update", "add_rotary_embedding", "add_attention")


@dataclass(frozen=True)
class Package:
    """One installed package: `trt` is its module."""

    backend: Backend
    trt: Any
    version: str
    # Attention takes the number of valid keys beside a mask (TensorRT 11, TensorRT for RTX).
    attention_lengths: bool
    # Plans are built for named compute capabilities, without their GPU (TensorRT for RTX).
    cross_builds: bool

    @property
    def attention(self) -> str:
        """The manifest's word for the kind of attention."""
        return "mask+lengths" if self.attention_lengths else "mask"


def _describe(backend: Backend, trt: Any) -> Package:
    network: Any = trt.INetworkDefinition
    version = str(trt.__version__)
    missing = [name for name in _NEEDED if not hasattr(network, name)]
    if missing:
        raise BuildError(
            f"[{backend} {version}] expected the layers {', '.join(_NEEDED)} (TensorRT 10.15 or "
            f"newer), got none named {', '.join(missing)}"
        )
    lengths = hasattr(network, "add_attention_v2") and hasattr(trt.IAttention, "key_value_lengths")
    cross = hasattr(trt.IBuilderConfig, "set_compute_capability")
    return Package(backend, trt, version, lengths, cross)


def load_package(backend: Backend | None = None) -> Package:
    """Import `backend`; None takes TensorRT when it is there, TensorRT for RTX otherwise.

    Raises BuildError that says what to install, or which layers the installed version lacks.
    """
    wanted: tuple[Backend, ...] = (backend,) if backend else ("tensorrt", "tensorrt_rtx")
    failures = []
    for name in wanted:
        for module in _MODULES[name]:
            try:
                trt = importlib.import_module(module)
            except ImportError as error:
                failures.append(f"{module}: {error}")
                continue
            return _describe(name, trt)
    extras = " or ".join(f"'higgs-rt[{_EXTRAS[name]}]'" for name in wanted)
    raise BuildError(
        f"[backend] expected {' or '.join(wanted)} (pip install {extras}), got "
        + "; ".join(failures)
    )
