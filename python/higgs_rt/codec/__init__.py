"""The audio codec: configuration, encoding of reference audio (torch), export for the runtime.

Decoding (codes to waveform) is native and is not here. `CodecEncoder` needs torch, which is
imported when the name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from higgs_rt.codec.config import CodecConfig, SemanticConfig

if TYPE_CHECKING:
    from higgs_rt.codec.encoder import CodecEncoder

__all__ = ["CodecConfig", "CodecEncoder", "SemanticConfig"]


def __getattr__(name: str) -> Any:
    if name != "CodecEncoder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from higgs_rt.codec.encoder import CodecEncoder
    except ImportError as error:
        raise ImportError(
            "[codec.CodecEncoder] expected torch and safetensors to encode reference audio, "
            f"got: {error}"
        ) from error
    return CodecEncoder
