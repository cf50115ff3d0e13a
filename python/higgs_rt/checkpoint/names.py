"""Tensor names of the two language model layouts (spec 2.1).

The transformers names are the canonical ones in this package; `original_name` gives the name of
the same tensor in the original release.
"""

from __future__ import annotations

_EXACT = {
    "model.embed_audio_tokens.embed_audio_tokens.weight": "audio_codebook_embeddings.weight",
    "audio_lm_head.weight": "audio_decoder_proj.audio_lm_head.weight",
    "text_lm_head.weight": "audio_decoder_proj.text_lm_head.weight",
}


def original_name(name: str) -> str:
    """The original layout's name of the language model tensor with transformers name `name`."""
    return _EXACT.get(name, name.removeprefix("model."))


def transformers_name(name: str) -> str:
    """The transformers name of a tensor that stands under either layout's name."""
    exact = {original: ours for ours, original in _EXACT.items()}
    if name in exact:
        return exact[name]
    if name in _EXACT or name.startswith("model."):
        return name
    return f"model.{name}"
