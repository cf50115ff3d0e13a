"""Fine-tuning: labels, loss, and that training reads what inference reads (issue 7, 1 and 2)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from higgs_rt import _higgs_rt as native
from higgs_rt.checkpoint import write_random_checkpoint
from higgs_rt.errors import CheckpointError, InvalidRequestError
from higgs_rt.prompt import (
    AudioClip,
    AudioSegment,
    Message,
    Profile,
    Reference,
    TextSegment,
    TextTokenizer,
    encode_messages,
    speech_messages,
)
from higgs_rt.training.labels import IGNORE
from higgs_rt.training.lora.config import LoraConfig
from higgs_rt.training.lora.decoder import decoder_layer, hidden_states
from higgs_rt.training.lora.examples import Batch, Example, StreamIds, collate, make_example
from higgs_rt.training.lora.model import add_adapters, load_base_model, stream_ids
from higgs_rt.training.lora.objective import Objective, loss_sums

SIZE = 30  # codes of a codebook in the tests' model
STREAM = StreamIds(8, SIZE + 2, SIZE, SIZE + 1)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("lora_model")
    write_random_checkpoint(directory, codebook_size=SIZE)
    return directory


@pytest.fixture(scope="module")
def tokenizer(model_dir: Path) -> TextTokenizer:
    return TextTokenizer.load(model_dir)


@pytest.fixture(scope="module")
def model(model_dir: Path) -> Any:
    return load_base_model(model_dir, torch.float32)


def clip(rng: np.random.Generator, frames: int) -> AudioClip:
    return AudioClip(rng.integers(0, SIZE, (8, frames)).astype(np.int32))


def random_sample(seed: int) -> tuple[list[Message], int]:
    """A conversation with text and audio of all roles, and its start_index."""
    rng = np.random.default_rng(seed)
    messages = [Message("system", ("Be brief.",))]
    for turn in range(int(rng.integers(1, 4))):
        heard = clip(rng, int(rng.integers(1, 5)))
        parts = (f"say {turn}", heard) if rng.random() < 0.5 else (f"say {turn}",)
        messages.append(Message("user", parts))
        messages.append(Message("assistant", (clip(rng, int(rng.integers(1, 9))),)))
        if rng.random() < 0.5:
            messages.append(Message("assistant", ("done", clip(rng, 2))))
    return messages, int(rng.integers(0, len(messages)))


def rows_by_hand(
    messages: Sequence[Message], start: int, tokenizer: TextTokenizer
) -> list[tuple[Any, bool]]:
    """(what stands at a position, whether it is a target) written from specification 4.1 and 10.

    A text position is its id; an audio position a list of (id, is a target) by codebook.
    """
    rows: list[tuple[Any, bool]] = []

    def text(literal: str, learnt: bool) -> None:
        rows.extend((one, learnt) for one in tokenizer.encode(literal))

    for index, message in enumerate(messages):
        learnt = message.role == "assistant" and index >= start
        begin = "<|begin_of_text|>" if index == 0 else ""
        text(f"{begin}<|start_header_id|>{message.role}<|end_header_id|>\n\n", False)
        for part in message.parts:
            if isinstance(part, str):
                text(part, learnt)
                continue
            bos = "<|audio_out_bos|>" if message.role == "assistant" else "<|audio_bos|>"
            text(bos, learnt)
            frames = part.codes.shape[1]
            for c in range(frames + 9):
                column = []
                for k in range(8):
                    j = c - k - 1
                    if j < 0:
                        column.append((SIZE, False))
                    elif j < frames:
                        column.append((int(part.codes[k, j]), learnt))
                    else:
                        column.append((SIZE + 1, learnt and j == frames))
                rows.append((column, False))
            text("<|audio_eos|>", learnt)
        following = messages[index + 1].role if index + 1 < len(messages) else None
        again = message.role == "assistant" and following == "assistant"
        text("<|eom_id|>" if again else "<|eot_id|>", learnt)
    return rows


def loss_by_hand(model: Any, rows: Sequence[tuple[Any, bool]]) -> tuple[list[float], float]:
    """Mean cross-entropy of each codebook and of the text, position by position.

    The model's answers come from transformers' own forward, with the delay token's relatives.
    """
    config = model.config
    ids = [config.audio_token_id if isinstance(what, list) else what for what, _ in rows]
    columns = [[one for one, _ in what] for what, _ in rows if isinstance(what, list)]
    with torch.no_grad():
        out = model.model(
            input_ids=torch.tensor([ids]),
            audio_input_ids=torch.tensor([columns]),
            audio_input_ids_mask=torch.ones(1, len(columns), dtype=torch.bool),
        ).last_hidden_state[0]
        audio = model.audio_lm_head(out).reshape(-1, 8, SIZE + 2).log_softmax(-1)
        text = model.text_lm_head(out).log_softmax(-1)
    sums, counts, text_sum, text_count = [0.0] * 8, [0] * 8, 0.0, 0
    for position in range(len(rows) - 1):
        here, (following, learnt) = rows[position][0], rows[position + 1]
        if isinstance(following, list):
            for k, (one, wanted) in enumerate(following):
                if wanted and isinstance(here, list):
                    sums[k] -= float(audio[position, k, one])
                    counts[k] += 1
        elif learnt:
            text_sum -= float(text[position, following])
            text_count += 1
    return [s / c if c else 0.0 for s, c in zip(sums, counts, strict=True)], text_sum / text_count


def trainer_loss(model: Any, batch: Batch) -> tuple[list[float], float, float]:
    """By codebook, of the text, and the whole."""
    with torch.no_grad():
        loss, sums = Objective(model, (), 0.5)(batch, batch.counts())
    means = (sums / batch.counts().clamp(min=1)).tolist()
    return means[:8], means[8], float(loss)


@pytest.mark.parametrize("seed", range(6))
def test_loss_equals_a_loop_over_columns(model: Any, tokenizer: TextTokenizer, seed: int) -> None:
    messages, start = random_sample(seed)
    if not any(m.role == "assistant" for m in messages[start:]):
        start = 0
    batch = collate([make_example(messages, tokenizer, STREAM, start_index=start)], 0)
    audio, text = loss_by_hand(model, rows_by_hand(messages, start, tokenizer))
    got_audio, got_text, whole = trainer_loss(model, batch)
    assert got_audio == pytest.approx(audio, abs=1e-4)
    assert got_text == pytest.approx(text, abs=1e-4)
    assert whole == pytest.approx(sum(audio) / 8 + 0.5 * text, abs=1e-4)


def test_a_batch_weighs_every_label_alike(model: Any, tokenizer: TextTokenizer) -> None:
    examples = [make_example(random_sample(seed)[0], tokenizer, STREAM) for seed in range(4)]
    alone = [collate([example], 0) for example in examples]
    sums = [loss_sums(model, batch) for batch in alone]
    together = loss_sums(model, collate(examples, 0))
    assert torch.allclose(together.audio, torch.stack([s.audio for s in sums]).sum(0), atol=2e-3)
    assert float(together.text) == pytest.approx(float(sum(s.text for s in sums)), abs=2e-3)


@pytest.mark.parametrize(
    ("checkpointing", "adapted"), [(False, False), (True, False), (False, True)]
)
def test_the_decoder_is_that_of_transformers(
    model_dir: Path, tokenizer: TextTokenizer, checkpointing: bool, adapted: bool
) -> None:
    """Hidden states and gradients of a padded batch, against transformers' and peft's layers."""
    examples = [make_example(random_sample(seed)[0], tokenizer, STREAM) for seed in range(3)]
    batch = collate(examples, 0)
    model = load_base_model(model_dir, torch.float32).requires_grad_(True).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if adapted:
        add_adapters(model, LoraConfig(rank=3, alpha=5.0, dropout=0.0)).train()
        draw = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)
    hidden, route = hidden_states(model, batch)
    padding = torch.arange(batch.ids.shape[1]) >= torch.tensor([[len(one)] for one in examples])
    ours = hidden[route.row].reshape(*batch.ids.shape, -1).masked_fill(padding[..., None], 0.0)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(0))
    torch.autograd.backward((ours * weight).sum())
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    inner = model.model
    x = inner.embed_tokens(batch.ids).masked_scatter(
        batch.is_audio[..., None], inner.embed_audio_tokens(batch.columns)
    )
    positions = torch.arange(x.shape[1])[None]
    for layer in inner.layers:
        x = layer(
            x,
            position_embeddings=inner.rotary_emb(x, positions),
            audio_token_mask=batch.is_audio,
            position_ids=positions,
        )
    theirs = inner.norm(x).masked_fill(padding[..., None], 0.0)
    (theirs * weight).sum().backward()
    assert torch.allclose(ours, theirs, atol=2e-5)
    heads = {"audio_lm_head.weight", "text_lm_head.weight"}
    trained = {name for name, p in model.named_parameters() if p.requires_grad} - heads
    assert set(gradients) == trained and len(trained) == (2 * 10 * 2 if adapted else 31)
    for name, parameter in model.named_parameters():
        if name in gradients:
            assert parameter.grad is not None
            scale = float(parameter.grad.abs().max())
            assert torch.allclose(gradients[name], parameter.grad, atol=1e-4 * scale + 1e-6), name


def test_a_layer_compiles_as_one_graph(model: Any, tokenizer: TextTokenizer) -> None:
    """Traced without a break, once for all layers (and once more for other sizes), same sums."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(decoder_layer, backend="eager", fullgraph=True)
    for seeds in (range(2), range(2, 5)):
        examples = [make_example(random_sample(seed)[0], tokenizer, STREAM) for seed in seeds]
        batch = collate(examples, 0)
        ours, theirs = loss_sums(model, batch, None, compiled), loss_sums(model, batch)
        assert torch.allclose(ours.joined(), theirs.joined(), rtol=1e-5)
    assert 1 <= counters["stats"]["unique_graphs"] <= 2


def test_one_eos_for_each_codebook_of_a_trained_clip(tokenizer: TextTokenizer) -> None:
    messages = speech_messages("hello", speakers=(Reference(np.ones((8, 3), np.int32), "hi"),))
    spoken = AudioClip(np.full((8, 4), 7, np.int32))
    example = make_example([*messages, Message("assistant", (spoken,))], tokenizer, STREAM)
    for k in range(8):
        labels = example.audio_labels[:, k]
        assert int((labels == STREAM.eos).sum()) == 2  # one of the reference, one of the answer
        assert int((labels == STREAM.bos).sum()) == 0
        assert int((labels != IGNORE).sum()) == 3 + 1 + 4 + 1
    last = make_example(
        [*messages, Message("assistant", (spoken,))], tokenizer, STREAM, start_index=len(messages)
    )
    assert ((last.audio_labels == STREAM.eos).sum(0) == 1).all()


def test_uniform_model_has_the_loss_of_chance(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, codebook_size=1024, layers=1)
    model = load_base_model(tmp_path, torch.float32)
    torch.nn.init.zeros_(model.audio_lm_head.weight)
    torch.nn.init.zeros_(model.text_lm_head.weight)
    rng = np.random.default_rng(0)
    spoken = AudioClip(rng.integers(0, 1024, (8, 20)).astype(np.int32))
    messages = [*speech_messages("hello"), Message("assistant", (spoken,))]
    example = make_example(messages, TextTokenizer.load(tmp_path), stream_ids(model))
    audio, text, _ = trainer_loss(model, collate([example, example], 0))
    assert audio == pytest.approx([math.log(1026)] * 8, abs=1e-3)
    assert text == pytest.approx(math.log(320), abs=1e-3)


def shifted(example: Example) -> Example:
    labels = torch.roll(example.audio_labels, 1, 0)
    return Example(example.ids, example.is_audio, example.columns, example.text_labels, labels, "")


def without_eos(example: Example) -> Example:
    labels = torch.where(example.audio_labels == STREAM.eos, IGNORE, example.audio_labels)
    return Example(example.ids, example.is_audio, example.columns, example.text_labels, labels, "")


@pytest.mark.parametrize("fault", [shifted, without_eos])
def test_wrong_labels_are_seen(
    model: Any, tokenizer: TextTokenizer, fault: Callable[[Example], Example]
) -> None:
    """The comparison with the loop fails by far when labels are shifted, or EOS is dropped."""
    messages, _ = random_sample(1)
    example = make_example(messages, tokenizer, STREAM)
    audio, _ = loss_by_hand(model, rows_by_hand(messages, 0, tokenizer))
    got, _, _ = trainer_loss(model, collate([fault(example)], 0))
    assert max(abs(a - b) for a, b in zip(audio, got, strict=True)) > 1e-2


def test_averaging_over_padding_is_seen(model: Any, tokenizer: TextTokenizer) -> None:
    """The loss of a short example is the same beside a long one; a mean over positions is not."""
    short = make_example(random_sample(0)[0], tokenizer, STREAM)
    long = make_example(random_sample(3)[0], tokenizer, STREAM)
    muted = Example(
        long.ids,
        long.is_audio,
        long.columns,
        torch.full_like(long.text_labels, IGNORE),
        torch.full_like(long.audio_labels, IGNORE),
    )
    alone, beside = collate([short], 0), collate([short, muted], 0)
    expected, _, _ = trainer_loss(model, alone)
    got, _, _ = trainer_loss(model, beside)
    assert got == pytest.approx(expected, abs=1e-4)
    over_positions = (loss_sums(model, beside).audio / len(beside.columns)).tolist()
    assert max(abs(a - b) for a, b in zip(expected, over_positions, strict=True)) > 1e-2


REFERENCES = [
    Reference(np.arange(8 * n, dtype=np.int32).reshape(8, n) % SIZE, f"words {n}") for n in (3, 5)
]
LAYOUTS: list[dict[str, Any]] = [
    {"speakers": speakers, "scene": scene, "placement": placement, "history": history}
    for speakers, scene, placement, history in itertools.product(
        ((), REFERENCES[:1], REFERENCES, [Profile("feminine"), REFERENCES[0]], [Profile("deep")]),
        (None, "A quiet room."),
        ("turns", "system"),
        ((), REFERENCES[1:]),
    )
]


@pytest.mark.parametrize("convention", ["original", "transformers"])
@pytest.mark.parametrize("text", ["Hello there.", "[SPEAKER0] Hello.\n[SPEAKER1] And you?"])
def test_training_reads_what_the_runtime_feeds(
    tokenizer: TextTokenizer, text: str, convention: Any
) -> None:
    """Every layout: ids and columns up to the answer are those of the request, bit for bit."""
    answer = np.random.default_rng(4).integers(0, SIZE, (8, 6)).astype(np.int32)
    for layout in LAYOUTS:
        messages = speech_messages(text, convention=convention, **layout)
        fed: list[Any] = []
        for segment in encode_messages(messages, tokenizer, convention=convention):
            if isinstance(segment, TextSegment):
                fed += segment.ids
            else:
                assert isinstance(segment, AudioSegment)
                fed += native.apply_delay(segment.codes, SIZE).tolist()
        fed += native.apply_delay(answer, SIZE).tolist()
        whole = [*messages, Message("assistant", (AudioClip(answer),))]
        example = make_example(
            whole, tokenizer, STREAM, start_index=len(messages), convention=convention
        )
        columns = iter(example.columns.tolist())
        seen = [
            next(columns) if is_audio else one
            for one, is_audio in zip(example.ids.tolist(), example.is_audio.tolist(), strict=True)
        ]
        assert seen[: len(fed)] == fed, layout
        tail = [tokenizer.special_id(token) for token in ("<|audio_eos|>", "<|eot_id|>")]
        assert seen[len(fed) :] == tail, layout
        learnt = [one for one in example.text_labels.tolist() if one != IGNORE]
        assert learnt == [tokenizer.special_id("<|audio_out_bos|>"), *tail], layout
        assert ((example.audio_labels == STREAM.eos).sum(0) == 1).all(), layout


def test_faults_are_named(tokenizer: TextTokenizer, model_dir: Path, tmp_path: Path) -> None:
    wrong = Message("assistant", (AudioClip(np.full((8, 2), SIZE, np.int32)),))
    with pytest.raises(InvalidRequestError, match=r"here:3.*codes 0\.\.29, got 8 with codes 30"):
        make_example([wrong], tokenizer, STREAM, name="here:3")
    with pytest.raises(InvalidRequestError, match="expected an assistant message at index 1"):
        right = Message("assistant", (AudioClip(np.ones((8, 2), np.int32)),))
        make_example([right, Message("user", ("x",))], tokenizer, STREAM, start_index=1)
    (tmp_path / "config.json").write_text((model_dir / "config.json").read_text())
    with pytest.raises(CheckpointError, match="expected safetensors files, got none"):
        load_base_model(tmp_path, torch.float32)


def test_both_layouts_load_alike(tmp_path: Path) -> None:
    for layout in ("transformers", "original"):
        write_random_checkpoint(tmp_path / layout, codebook_size=SIZE, layout=layout)
    ours, theirs = (
        load_base_model(tmp_path / layout, torch.float32) for layout in ("transformers", "original")
    )
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name
    rotary, other = ours.model.rotary_emb.inv_freq, theirs.model.rotary_emb.inv_freq
    assert torch.equal(rotary, other)
