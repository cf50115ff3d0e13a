"""The language model's decoder as a TensorRT network (docs/tensorrt.md, "Decoder bindings").

It computes what csrc/model/decoder.cpp computes. The residual stream is two tensors, text rows
[Nt, H] and audio rows [Na, H], each with its own norms and FFN; they meet only in attention, on
the padded grid [B, S].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from build_engine.backend import Package
from build_engine.checkpoint import MappedCheckpoint
from build_engine.definition import Definition, Tensor
from build_engine.model_config import ModelConfig, rope_tables
from build_engine.options import DecoderOptions

# StepBatch::kFeedback: an audio id from here on names a row of `last_columns`.
FEEDBACK = 1 << 30


class DecoderNetwork:
    """Writes the network into a Definition."""

    def __init__(
        self,
        package: Package,
        builder: Any,
        config: ModelConfig,
        checkpoint: MappedCheckpoint,
        options: DecoderOptions,
    ) -> None:
        """Nothing is written yet; see `write`."""
        self.net = Definition(package, builder, weights_as_inputs=options.weights == "inputs")
        self.config = config
        self.options = options
        self._checkpoint = checkpoint
        self._dtype = options.dtype

    def write(self) -> Definition:
        """The whole network."""
        net = self.net
        ids = {name: net.input(name, "i32", (rows,)) for name, rows in _ROW_INPUTS}
        grid = {name: net.input(name, "i32", ("B", "S")) for name in ("row_index", "position")}
        slots = {name: net.input(name, "i32", ("B",)) for name in ("write_index", "kv_length")}
        inputs = ids | grid | slots
        text = self.embed_text(ids["text_ids"])
        audio = self.embed_columns(ids["audio_ids"])
        mask = self.mask(grid["position"])
        tables = self.rotary_tables()
        for layer in range(self.config.num_layers):
            name = f"layers.{layer}"
            attended = self.attention(layer, text, audio, inputs, mask, tables)
            text = net.add(
                text, net.gather(attended, ids["text_place"], f"{name}.text"), f"{name}.text.sum"
            )
            audio = net.add(
                audio,
                net.gather(attended, ids["audio_place"], f"{name}.audio"),
                f"{name}.audio.sum",
            )
            text = net.add(text, self.feed_forward(text, name, ""), f"{name}.text.out")
            audio = net.add(audio, self.feed_forward(audio, name, "audio_"), f"{name}.audio.out")
        self.logits(text, audio, ids["logit_rows"])
        return net

    # --- Embeddings ---------------------------------------------------------------------------

    def embed_text(self, ids: Tensor) -> Tensor:
        """[Nt, H]: a row of embed_tokens, or row id - text_vocab of `table_rows`."""
        net, config = self.net, self.config
        table = net.input("table_rows", "f32", ("P", config.hidden_size))
        last = net.scalar(config.text_vocab - 1, 1, "i32")
        # Both tables are read for every row, each at a row that it has.
        token = net.elementwise(ids, last, "MIN", "embed.token_id")
        row = net.elementwise(
            net.elementwise(ids, net.scalar(config.text_vocab, 1, "i32"), "SUB", "embed.row"),
            net.scalar(0, 1, "i32"),
            "MAX",
            "embed.table_row",
        )
        tokens = net.gather(
            self.weight("embed_tokens", config.text_vocab, config.hidden_size), token, "embed.text"
        )
        rows = net.cast(net.gather(table, row, "embed.table"), self._dtype, "embed.table.cast")
        is_row = net.elementwise(ids, last, "GREATER", "embed.is_table_row")
        return net.select(net.unsqueeze(is_row, (1,), "embed.is_row"), rows, tokens, "embed.select")

    def embed_columns(self, ids: Tensor) -> Tensor:
        """[Na, H]: the sum over codebooks in fp32, rounded once (specification 3.1)."""
        net, config = self.net, self.config
        columns = self.columns(ids)
        offsets = np.arange(config.num_codebooks, dtype=np.int32) * config.codebook_vocab
        rows = net.add(
            columns, net.array("column_offsets", offsets[None, :], "i32"), "columns.rows"
        )
        table = self.weight("audio_codebook_embeddings", config.audio_rows, config.hidden_size)
        parts = net.cast(net.gather(table, rows, "columns.embed"), "f32", "columns.f32")
        return net.cast(
            net.reduce(parts, "SUM", 1, False, "columns.sum"), self._dtype, "columns.cast"
        )

    def columns(self, ids: Tensor) -> Tensor:
        """[Na, K]: row of `last_columns` from FEEDBACK on, row of `columns` below."""
        net, books = self.net, self.config.num_codebooks
        given = net.input("columns", "i32", ("C", books))
        last = net.input("last_columns", "i32", ("R", books))
        zero = net.scalar(0, 1, "i32")
        fed = net.elementwise(
            ids, net.scalar(FEEDBACK - 1, 1, "i32"), "GREATER", "columns.is_feedback"
        )
        row = net.elementwise(
            net.elementwise(ids, net.scalar(FEEDBACK, 1, "i32"), "SUB", "columns.feedback"),
            zero,
            "MAX",
            "columns.feedback_row",
        )
        index = net.select(fed, zero, ids, "columns.given_row")
        return net.select(
            net.unsqueeze(fed, (1,), "columns.fed"),
            net.gather(last, row, "columns.last"),
            net.gather(given, index, "columns.given"),
            "columns.select",
        )

    # --- Layer --------------------------------------------------------------------------------

    def attention(
        self,
        layer: int,
        text: Tensor,
        audio: Tensor,
        inputs: dict[str, Tensor],
        mask: Tensor,
        tables: tuple[Tensor, Tensor],
    ) -> Tensor:
        """o_proj(attention(norm(x))) of every place of the grid, [B * S, H]."""
        net, config, name = self.net, self.config, f"layers.{layer}"
        normed = net.concatenate(
            [
                self.rms_norm(text, f"{name}.input_layernorm"),
                self.rms_norm(audio, f"{name}.audio_input_layernorm"),
            ],
            0,
            f"{name}.rows",
        )
        x = net.gather(normed, inputs["row_index"], f"{name}.grid")
        position = inputs["position"]
        q = self.rotate(self.heads(x, name, "q", config.num_heads), tables, position, f"{name}.q")
        k = self.rotate(
            self.heads(x, name, "k", config.num_kv_heads), tables, position, f"{name}.k"
        )
        v = self.heads(x, name, "v", config.num_kv_heads)
        keys = self.cache(layer, "k", k, inputs["write_index"])
        values = self.cache(layer, "v", v, inputs["write_index"])
        out = net.attention(q, keys, values, mask, inputs["kv_length"], f"{name}.attention")
        q_dim = config.num_heads * config.head_dim
        flat = net.reshape(out, (-1, q_dim), f"{name}.attended", before=(0, 2, 1, 3))
        return net.linear(
            flat, self.weight(f"{name}.self_attn.o_proj", config.hidden_size, q_dim), f"{name}.o"
        )

    def heads(self, x: Tensor, layer: str, which: str, heads: int) -> Tensor:
        """Projection of x [B, S, H], as [B, heads, S, D]."""
        net, config = self.net, self.config
        rows = heads * config.head_dim
        weight = self.weight(f"{layer}.self_attn.{which}_proj", rows, config.hidden_size, leading=1)
        y = net.linear(x, weight, f"{layer}.{which}_proj")
        return net.reshape(
            y, (0, 0, heads, config.head_dim), f"{layer}.{which}_heads", after=(0, 2, 1, 3)
        )

    def rotate(
        self, x: Tensor, tables: tuple[Tensor, Tensor], position: Tensor, name: str
    ) -> Tensor:
        """Rotary embedding in fp32; queries are also scaled by 1 / sqrt(D), there, because that
        number is not exact in 16 bits.
        """
        net = self.net
        y = net.rotary(net.cast(x, "f32", f"{name}.f32"), tables, position, f"{name}.rotary")
        if name.endswith(".q"):
            y = net.multiply(y, net.scalar(self.config.head_dim**-0.5, 4), f"{name}.scaled")
        return net.cast(y, self._dtype, f"{name}.cast")

    def cache(self, layer: int, which: str, update: Tensor, write_index: Tensor) -> Tensor:
        """The slots' cache of one layer with the new positions written."""
        net, config = self.net, self.config
        shape = ("B", config.num_kv_heads, self.options.max_seq_len, config.head_dim)
        past = net.input(f"past_{which}_{layer}", self._dtype, shape)
        present = net.cache_update(past, update, write_index, f"layers.{layer}.{which}_cache")
        net.output(present, f"present_{which}_{layer}", self._dtype, shape)
        return present

    def feed_forward(self, x: Tensor, layer: str, modality: str) -> Tensor:
        """down(silu(gate y) * up y), y = norm(x): x [n, H]."""
        net, config = self.net, self.config
        hidden = config.hidden_size
        ffn = config.audio_ffn if modality else config.text_ffn
        name = f"{layer}.{modality}mlp"
        y = self.rms_norm(x, f"{layer}.{modality}post_attention_layernorm")
        gate = net.linear(y, self.weight(f"{name}.gate_proj", ffn, hidden), f"{name}.gate")
        up = net.linear(y, self.weight(f"{name}.up_proj", ffn, hidden), f"{name}.up")
        silu = net.multiply(gate, net.sigmoid(gate, f"{name}.sigmoid"), f"{name}.silu")
        inner = net.multiply(silu, up, f"{name}.inner")
        return net.linear(inner, self.weight(f"{name}.down_proj", hidden, ffn), f"{name}.down")

    def rms_norm(self, x: Tensor, name: str) -> Tensor:
        """x / sqrt(mean(x^2) + eps) * weight: statistics and division in fp32, then rounded, then
        multiplied in the plan's dtype (specification 3.5). TensorRT has no layer for it.
        """
        net = self.net
        wide = net.cast(x, "f32", f"{name}.f32")
        mean = net.reduce(
            net.multiply(wide, wide, f"{name}.square"), "AVG", 1, True, f"{name}.mean"
        )
        shifted = net.add(mean, net.scalar(self.config.rms_norm_eps, 2), f"{name}.eps")
        scale = net.unary(net.unary(shifted, "SQRT", f"{name}.sqrt"), "RECIP", f"{name}.recip")
        normed = net.cast(net.multiply(wide, scale, f"{name}.normed"), self._dtype, f"{name}.cast")
        weight = self._checkpoint.get(f"{name}.weight", (self.config.hidden_size,))
        return net.multiply(normed, net.parameter(weight, self._dtype, 1), f"{name}.out")

    # --- Tables and head ----------------------------------------------------------------------

    def mask(self, position: Tensor) -> Tensor:
        """[B, 1, S, M] bool: a query attends to cache positions up to its own."""
        net = self.net
        capacity = self.options.max_seq_len
        keys = np.arange(capacity, dtype=np.int32).reshape(1, 1, 1, capacity)
        end = net.add(
            net.unsqueeze(position, (1, 3), "mask.query"), net.scalar(1, 4, "i32"), "mask.end"
        )
        return net.elementwise(net.array("mask.keys", keys, "i32"), end, "LESS", "mask")

    def rotary_tables(self) -> tuple[Tensor, Tensor]:
        """cos and sin of every position of a slot, fp32."""
        config = self.config
        cos, sin = rope_tables(config.rope, config.head_dim, self.options.max_seq_len)
        return self.net.array("rope.cos", cos, "f32"), self.net.array("rope.sin", sin, "f32")

    def logits(self, text: Tensor, audio: Tensor, rows: Tensor) -> None:
        """Final norm and audio head of the wanted rows only."""
        net, config = self.net, self.config
        x = net.gather(net.concatenate([text, audio], 0, "rows"), rows, "logit_rows.x")
        head = self.weight(
            "audio_decoder_proj.audio_lm_head", config.audio_rows, config.hidden_size
        )
        y = net.cast(net.linear(self.rms_norm(x, "norm"), head, "head"), "f32", "head.f32")
        shape = (config.num_codebooks, config.codebook_vocab)
        net.output(net.reshape(y, (0, *shape), "logits"), "logits", "f32", ("L", *shape))

    def weight(self, name: str, rows: int, columns: int, leading: int = 0) -> Tensor:
        """The matrix with this canonical name (without `.weight`), in the plan's dtype."""
        stored = self._checkpoint.get(f"{name}.weight", (rows, columns))
        return self.net.parameter(stored, self._dtype, leading)


_ROW_INPUTS = (
    ("text_ids", "Nt"),
    ("audio_ids", "Na"),
    ("text_place", "Nt"),
    ("audio_place", "Na"),
    ("logit_rows", "L"),
)
