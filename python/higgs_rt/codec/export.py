"""Conversion of an original-layout codec for the native decoder, which reads only safetensors."""

from __future__ import annotations

from pathlib import Path

from higgs_rt.checkpoint.safetensors_file import write_safetensors
from higgs_rt.codec.config import CodecConfig
from higgs_rt.codec.names import decoder_tensors, original_name
from higgs_rt.codec.tensor_store import TensorStore, stored_parts
from higgs_rt.errors import CheckpointError

# The native decoder reads any safetensors file of a codec directory that has no model.safetensors.
DEFAULT_NAME = "decoder.safetensors"


def export_decoder_safetensors(source: str | Path, destination: str | Path | None = None) -> Path:
    """Write the decoding tensors of the original-layout codec in directory `source` to a file.

    The tensors keep their ORIGINAL names and weight-norm pairs (`weight_g`, `weight_v`) and are
    fp32. `destination` is overwritten; it defaults to `decoder.safetensors` in `source`, where the
    native decoder finds it beside `model.pth`. Returns the path written. Raises CheckpointError
    when `source` is not in the original layout or lacks a tensor. Needs torch.
    """
    store = TensorStore.open(Path(source))
    config = CodecConfig.read(Path(source) / "config.json", store.shapes)
    if config.layout != "original":
        raise CheckpointError(
            f"[{source}] expected an original-layout codec (model.pth), got the transformers "
            "layout, which the native decoder reads as it is"
        )
    tensors = {}
    for name in decoder_tensors(config):
        for part in stored_parts(original_name(name, len(config.ratios)), store.shapes, source):
            tensors[part] = store.get(part).numpy()
    path = Path(source) / DEFAULT_NAME if destination is None else Path(destination)
    write_safetensors(path, tensors)
    return path
