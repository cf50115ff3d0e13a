"""Codec tensors: names in both layouts and shapes (spec 2.2), each defined once.

The canonical name of a tensor is its transformers name with weight normalisation folded away
(`….weight`). How a normalised weight is stored differs; see `stored_weight_names`.
"""

from __future__ import annotations

import re

from higgs_rt.codec.config import CodecConfig

Shape = tuple[int, ...]

SNAKE_AND_CONVS = ("snake1", "conv1", "snake2", "conv2")
POS_CONV = "semantic_model.encoder.pos_conv_embed.conv"
# Present in checkpoints, not needed by this package's encoder or by the native decoder.
UNUSED_PREFIXES = ("decoder_semantic.", "fc1.", "semantic_model.masked_spec_embed")
UNUSED_CODEBOOK_PARTS = ("embed_avg", "cluster_size", "inited")


def _conv(name: str, out_channels: int, in_channels: int, kernel: int) -> dict[str, Shape]:
    return {f"{name}.weight": (out_channels, in_channels, kernel), f"{name}.bias": (out_channels,)}


def _linear(name: str, out_dim: int, in_dim: int) -> dict[str, Shape]:
    return {f"{name}.weight": (out_dim, in_dim), f"{name}.bias": (out_dim,)}


def _norm(name: str, dim: int) -> dict[str, Shape]:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def _res_units(prefix: str, channels: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for unit in (1, 2, 3):
        name = f"{prefix}.res_unit{unit}"
        shapes[f"{name}.snake1.alpha"] = (1, channels, 1)
        shapes |= _conv(f"{name}.conv1", channels, channels, 7)
        shapes[f"{name}.snake2.alpha"] = (1, channels, 1)
        shapes |= _conv(f"{name}.conv2", channels, channels, 1)
    return shapes


def _acoustic_encoder(config: CodecConfig) -> dict[str, Shape]:
    width = config.encoder_hidden
    shapes = _conv("acoustic_encoder.conv1", width, 1, 7)
    for index, stride in enumerate(config.ratios):
        block = f"acoustic_encoder.block.{index}"
        shapes |= _res_units(block, width)
        shapes[f"{block}.snake1.alpha"] = (1, width, 1)
        shapes |= _conv(f"{block}.conv1", 2 * width, width, 2 * stride)
        width *= 2
    shapes["acoustic_encoder.snake1.alpha"] = (1, width, 1)
    return shapes | _conv("acoustic_encoder.conv2", config.latent, width, 3)


def _acoustic_decoder(config: CodecConfig) -> dict[str, Shape]:
    width = config.decoder_hidden
    shapes = _conv("acoustic_decoder.conv1", width, config.latent, 7)
    for index, stride in enumerate(config.ratios):
        block = f"acoustic_decoder.block.{index}"
        shapes[f"{block}.snake1.alpha"] = (1, width, 1)
        # A transposed convolution's weight is [in, out, kernel].
        shapes[f"{block}.conv_t1.weight"] = (width, width // 2, 2 * stride)
        shapes[f"{block}.conv_t1.bias"] = (width // 2,)
        width //= 2
        shapes |= _res_units(block, width)
    shapes["acoustic_decoder.snake1.alpha"] = (1, width, 1)
    return shapes | _conv("acoustic_decoder.conv2", 1, width, 7)


def _semantic_blocks(prefix: str, width: int, conv_first: bool) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for block in range(2):
        name = f"{prefix}.conv_blocks.{block}"
        if conv_first:
            shapes |= _conv(f"{name}.conv", width, width, 3)
        for unit in range(2):
            shapes[f"{name}.res_units.{unit}.conv1.weight"] = (width, width, 3)
            shapes[f"{name}.res_units.{unit}.conv2.weight"] = (width, width, 1)
        if not conv_first:
            shapes |= _conv(f"{name}.conv", width, width, 3)
    return shapes


def _semantic_encoder(config: CodecConfig) -> dict[str, Shape]:
    width = config.semantic.hidden
    shapes: dict[str, Shape] = {"encoder_semantic.conv.weight": (width, width, 3)}
    return shapes | _semantic_blocks("encoder_semantic", width, conv_first=False)


def _semantic_decoder(config: CodecConfig) -> dict[str, Shape]:
    width = config.semantic.hidden
    shapes: dict[str, Shape] = {"decoder_semantic.conv1.weight": (width, width, 3)}
    shapes |= _semantic_blocks("decoder_semantic", width, conv_first=True)
    return shapes | {"decoder_semantic.conv2.weight": (width, width, 3)}


def _hubert(config: CodecConfig) -> dict[str, Shape]:
    semantic = config.semantic
    hidden, root = semantic.hidden, "semantic_model."
    shapes: dict[str, Shape] = {}
    in_dim = 1
    for index, (out_dim, kernel) in enumerate(
        zip(semantic.conv_dim, semantic.conv_kernel, strict=True)
    ):
        name = f"{root}feature_extractor.conv_layers.{index}"
        shapes[f"{name}.conv.weight"] = (out_dim, in_dim, kernel)
        if index == 0:
            shapes |= _norm(f"{name}.layer_norm", out_dim)
        in_dim = out_dim
    shapes |= _norm(f"{root}feature_projection.layer_norm", in_dim)
    shapes |= _linear(f"{root}feature_projection.projection", hidden, in_dim)
    shapes |= _conv(POS_CONV, hidden, hidden // semantic.pos_groups, semantic.pos_kernel)
    shapes |= _norm(f"{root}encoder.layer_norm", hidden)
    for index in range(semantic.layers):
        layer = f"{root}encoder.layers.{index}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{layer}.attention.{part}", hidden, hidden)
        shapes |= _norm(f"{layer}.layer_norm", hidden)
        shapes |= _linear(f"{layer}.feed_forward.intermediate_dense", semantic.ffn, hidden)
        shapes |= _linear(f"{layer}.feed_forward.output_dense", hidden, semantic.ffn)
        shapes |= _norm(f"{layer}.final_layer_norm", hidden)
    return shapes


def _quantizer(config: CodecConfig) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for index in range(config.num_codebooks):
        name = f"quantizer.quantizers.{index}"
        shapes[f"{name}.codebook.embed"] = (config.codebook_size, config.codebook_dim)
        shapes |= _linear(f"{name}.project_in", config.codebook_dim, config.fused)
        shapes |= _linear(f"{name}.project_out", config.fused, config.codebook_dim)
    return shapes


def encoder_tensors(config: CodecConfig) -> dict[str, Shape]:
    """Canonical name -> shape of the tensors that encoding needs."""
    shapes = _hubert(config) | _semantic_encoder(config) | _acoustic_encoder(config)
    return shapes | _linear("fc", config.fused, config.fused) | _quantizer(config)


def decoder_tensors(config: CodecConfig) -> dict[str, Shape]:
    """Canonical name -> shape of the tensors that decoding needs."""
    shapes = {
        name: shape for name, shape in _quantizer(config).items() if ".project_in." not in name
    }
    return shapes | _linear("fc2", config.latent, config.fused) | _acoustic_decoder(config)


def unused_tensors(config: CodecConfig) -> dict[str, Shape]:
    """Canonical name -> shape of the tensors that a full checkpoint also holds."""
    shapes = _semantic_decoder(config) | _linear("fc1", config.semantic.hidden, config.fused)
    for index in range(config.num_codebooks):
        name = f"quantizer.quantizers.{index}.codebook"
        shapes[f"{name}.embed_avg"] = (config.codebook_size, config.codebook_dim)
        shapes[f"{name}.cluster_size"] = (config.codebook_size,)
        shapes[f"{name}.inited"] = (1,)
    return shapes


def is_unused(name: str) -> bool:
    """Whether a canonical name belongs to a part that neither direction needs."""
    return name.startswith(UNUSED_PREFIXES) or (
        name.startswith("quantizer.") and name.endswith(UNUSED_CODEBOOK_PARTS)
    )


def is_weight_normed(name: str) -> bool:
    """Whether the original training normalised this canonical `….weight`."""
    return name.endswith(".weight") and (
        name.startswith(("acoustic_encoder.", "acoustic_decoder.", POS_CONV))
    )


def original_name(name: str, num_blocks: int) -> str:
    """The original layout's name of a canonical name; `num_blocks` is the number of ratios."""
    if name.startswith(("acoustic_encoder.", "acoustic_decoder.")):
        return _original_acoustic(name, num_blocks)
    if name.startswith(("encoder_semantic.", "decoder_semantic.")):
        # Every convolution but the 1x1 of the residual units sits in a wrapper named `conv`.
        if ".res_units." in name and ".conv2." in name:
            return name
        return re.sub(r"\.(conv[12]?)\.(weight|bias)$", r".\1.conv.\2", name)
    for ours, theirs in (
        ("quantizer.quantizers.", "quantizer.vq.layers."),
        ("fc.", "fc_prior."),
        ("fc1.", "fc_post1."),
        ("fc2.", "fc_post2."),
    ):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours).replace(".codebook.", "._codebook.")
    return name


def _original_acoustic(name: str, num_blocks: int) -> str:
    """Original name of an acoustic tensor: lists of layers, addressed by position only."""
    side, part, *rest = name.split(".")
    encoder = side == "acoustic_encoder"
    root = "encoder.block" if encoder else "decoder_2.model"
    if part != "block":
        outer = {"conv1": 0, "snake1": num_blocks + 1, "conv2": num_blocks + 2}[part]
        return ".".join([root, str(outer), *rest])
    outer = int(rest[0]) + 1
    layer, *tail = rest[1:]
    if layer.startswith("res_unit"):
        # Residual units come first in an encoder block, last in a decoder block.
        position = int(layer.removeprefix("res_unit")) + (-1 if encoder else 1)
        tail = ["block", str(SNAKE_AND_CONVS.index(tail[0])), *tail[1:]]
    else:
        position = {"snake1": 3 if encoder else 0, "conv1": 4, "conv_t1": 1}[layer]
    return ".".join([root, str(outer), "block", str(position), *tail])


def stored_weight_names(name: str) -> tuple[tuple[str, ...], ...]:
    """How a canonical weight may be stored: plain, or as (g, v) under either of two names."""
    base = name.removesuffix(".weight")
    return (
        (name,),
        (f"{base}.weight_g", f"{base}.weight_v"),
        (f"{base}.parametrizations.weight.original0", f"{base}.parametrizations.weight.original1"),
    )
