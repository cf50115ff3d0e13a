"""Training code against transformers: packed forward, codec forward, losses, a few steps."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from higgs_rt.training.codec_model import FusedSnake, TrainableCodec, import_codec_classes
from higgs_rt.training.codec_refine import CodePool, RefineSettings, refine_decoder
from higgs_rt.training.codec_train import (
    AudioPool,
    CodecSettings,
    at_gain,
    encode_pool,
    train_codec,
)
from higgs_rt.training.lm_model import ForwardSettings, PackedBatch, forward, losses
from higgs_rt.training.lm_train import LmSettings, Source, train_lm
from higgs_rt.training.turns import ClipTable, TurnShape, TurnTokens, compose, corrupt

CODES, VOCABULARY = 12, 40
AUDIO, DELAY, AUDIO_BOS, AUDIO_EOS, EOT = 30, 31, 32, 33, 34


@pytest.fixture(scope="module")
def model() -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.HiggsAudioV2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        codebook_size=CODES + 2,
        audio_stream_bos_id=CODES,
        audio_stream_eos_id=CODES + 1,
        audio_token_id=AUDIO,
        audio_delay_token_id=DELAY,
        audio_bos_token_id=AUDIO_BOS,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=EOT,
    )
    return transformers.HiggsAudioV2ForConditionalGeneration(config, use_text_head=True).eval()


@pytest.fixture(scope="module")
def table() -> ClipTable:
    """Four clips of 5, 7, 4 and 6 frames with turns of 6 to 9 tokens."""
    generator = torch.Generator().manual_seed(2)
    frames = torch.tensor([5, 7, 4, 6])
    lengths = torch.tensor([6, 9, 7, 8])
    turns = torch.zeros(4, 16, dtype=torch.int16)
    for row, length in enumerate(lengths.tolist()):
        turns[row, :length] = torch.randint(2, 28, (length,), generator=generator)
        turns[row, length - 1] = AUDIO_BOS
    total = int(frames.sum())
    return ClipTable(
        codes=torch.randint(0, CODES, (total, 8), generator=generator).to(torch.uint8),
        start=frames.cumsum(0) - frames,
        frames=frames,
        voice=torch.zeros(4, dtype=torch.long),
        turns=turns,
        turn_length=lengths,
        attend=torch.full((total,), 3.0).half(),
        prefixes=torch.tensor([[1, 0, 0, 0], [1, 5, 6, 7]], dtype=torch.int16),
        prefix_length=torch.tensor([1, 4]),
        tokens=TurnTokens(AUDIO_EOS, EOT, AUDIO_BOS, CODES, CODES + 1),
    )


def cloned(table: ClipTable) -> PackedBatch:
    shape = TurnShape(2, 4, (16, 16), (16, 16))
    pairs = [torch.tensor([0, 2]), torch.tensor([1, 3])]
    return compose(table, shape, torch.tensor([0, 1]), pairs, pairs)


def test_packed_forward_equals_transformers(model: Any, table: ClipTable) -> None:
    batch = cloned(table)
    with torch.no_grad():
        hidden, _ = forward(model, batch, ForwardSettings(dtype=torch.float32))
        text = batch.text_ids.shape[1]
        packed = model.audio_lm_head(hidden[:, text:])
        for row in range(2):
            places = batch.audio_positions[row]
            used = (places >= 0).nonzero()[:, 0]
            used = used[places[used].argsort()]
            ids = torch.full((1, int(batch.text_positions[row].max()) + 1), AUDIO)
            at = batch.text_positions[row]
            ids[0, at[at >= 0]] = batch.text_ids[row, at >= 0]
            columns = batch.audio_ids[row, used][None]
            assert (ids == AUDIO).sum() == len(used)
            wanted = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                audio_input_ids=columns,
                audio_input_ids_mask=torch.ones(1, len(used), dtype=torch.bool),
            ).logits[0, places[used]]
            assert (packed[row, used] - wanted).abs().max() < 1e-5


def test_labels_of_a_batch(table: ClipTable) -> None:
    batch = cloned(table)
    ends = (batch.audio_labels[:, 16:] == CODES + 1).sum(1)
    assert ends.tolist() == [[1] * 8] * 2
    # Of the reference only what follows its first nine columns is trained.
    assert (batch.audio_labels[:, :9] == -100).all()
    counts = (batch.audio_labels[:, :16] != -100).sum((1, 2))
    assert (counts < (batch.audio_labels[:, 16:] != -100).sum((1, 2))).all()
    named = [row[row != -100].tolist() for row in batch.text_labels]
    assert named == [[EOT, AUDIO_BOS, EOT, AUDIO_EOS, AUDIO_EOS]] * 2


def test_untrained_loss_is_chance(model: Any, table: ClipTable) -> None:
    part = losses(model, cloned(table), ForwardSettings(dtype=torch.float32))
    chance = torch.tensor(CODES + 2.0).log()
    assert (part.audio - chance).abs().max() < 0.3


def small_run(**changes: Any) -> LmSettings:
    """Settings of a short run over two guided heads."""
    settings = LmSettings(
        seconds=600.0,
        total_seconds=1e9,  # the schedule goes by steps
        learning_rate=2e-2,
        warmup_steps=2,
        dropout=0.0,
        guided=((1, 0, False), (1, 2, True)),
    )
    return replace(settings, **changes)


def train(model: Any, source: Source, settings: LmSettings, earlier: Any = None) -> dict[str, Any]:
    """Trains on the CPU; returns a copy of the last state."""
    kept: list[dict[str, Any]] = []

    def check(state: dict[str, Any]) -> None:
        kept.append(copy.deepcopy(state))

    train_lm(model, [source, source], settings, torch.device("cpu"), lambda _: None, check, earlier)
    return kept[-1]


def test_a_few_steps_learn(model: Any, table: ClipTable) -> None:
    numerics = ForwardSettings(dtype=torch.float32)
    before = losses(model, cloned(table), numerics)
    state = copy.deepcopy(model.state_dict())
    kept = train(model, Source("clones", lambda: cloned(table), 1.0), small_run(max_steps=30))
    after = losses(model, cloned(table), numerics)
    model.load_state_dict(state)
    assert kept["steps"] == 30
    assert float(after.audio.mean()) < 0.8 * float(before.audio.mean())
    assert float(after.text) < float(before.text)


def test_two_runs_are_one(model: Any, table: ClipTable, tmp_path: Path) -> None:
    """Six steps, and three after three, end in the same bits: moments, schedule, random numbers."""
    source = Source("clones", lambda: corrupt(cloned(table), CODES, 0.5), 1.0)
    state = copy.deepcopy(model.state_dict())
    results = []
    for parts in ((6,), (3, 3)):
        model.load_state_dict(state)
        torch.manual_seed(5)
        earlier = None
        for steps in parts:
            settings = small_run(max_steps=steps, total_steps=6, decay_from=0.4, dropout=0.2)
            torch.save(train(model, source, settings, earlier), tmp_path / "state.pt")
            earlier = torch.load(tmp_path / "state.pt")
            torch.manual_seed(99)  # what another process starts with
        assert earlier is not None and earlier["steps"] == 6
        results.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    model.load_state_dict(state)
    assert any(not torch.equal(results[0][name], tensor) for name, tensor in state.items())
    assert all(torch.equal(results[1][name], tensor) for name, tensor in results[0].items())


def test_the_logit_term_keeps_logits_small(model: Any, table: ClipTable) -> None:
    numerics = ForwardSettings(dtype=torch.float32)
    source = Source("clones", lambda: cloned(table), 1.0)
    state = copy.deepcopy(model.state_dict())
    squares = []
    for weight in (0.0, 0.05):
        model.load_state_dict(state)
        train(model, source, small_run(max_steps=40, logit_weight=weight))
        part = losses(model, cloned(table), numerics)
        squares.append(float(part.square))
        hidden, _ = forward(model, cloned(table), numerics)
        logits = model.audio_lm_head(hidden[:, cloned(table).text_ids.shape[1] :])
        counted = (cloned(table).audio_labels != -100).flatten()
        wanted = logits.reshape(-1, CODES + 2)[counted].square().mean()
        assert abs(float(part.square) - float(wanted)) < 1e-4 * float(wanted)
    model.load_state_dict(state)
    assert squares[1] < 0.7 * squares[0]


@pytest.fixture
def codec() -> TrainableCodec:
    pytest.importorskip("transformers")
    torch.manual_seed(3)
    config_class, model_class = import_codec_classes()
    core = model_class(
        config_class(
            target_bandwidths=[0.4, 0.8],
            codebook_size=16,
            codebook_dim=8,
            acoustic_model_config={
                "model_type": "dac",
                "encoder_hidden_size": 4,
                "downsampling_ratios": [8, 5, 4, 2, 3],
                "decoder_hidden_size": 64,
                "upsampling_ratios": [8, 5, 4, 2, 3],
                "hidden_size": 16,
            },
            semantic_model_config={
                "model_type": "hubert",
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 32,
                "conv_dim": [8] * 7,
                "num_conv_pos_embeddings": 16,
                "num_conv_pos_embedding_groups": 2,
                "mask_time_prob": 0.0,
                "mask_feature_prob": 0.0,
            },
        )
    )
    codec = TrainableCodec(core)
    codec.reset()
    return codec.eval()


def test_codec_forward_equals_transformers(codec: TrainableCodec) -> None:
    core = codec.core
    wave = torch.randn(2, 960 * 12) * 0.1
    with torch.no_grad():
        quantised = codec.quantise(codec.encode_latent(wave))
        wanted = core.encode(wave[:, None]).audio_codes
        assert torch.equal(quantised.codes, wanted)
        made = codec.decode_latent(quantised.latent)
        assert (made - core.decode(wanted).audio_values[:, 0]).abs().max() < 1e-5
    codec.train()
    quantised = codec.quantise(codec.encode_latent(wave), torch.tensor([1, 4]))
    loss = codec.decode_latent(quantised.latent).square().mean() + quantised.commitment
    loss.backward()  # type: ignore[no-untyped-call]
    for part in (core.acoustic_encoder, core.semantic_model, core.acoustic_decoder):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


def test_clips_encode_as_if_alone_and_the_decoder_learns(codec: TrainableCodec) -> None:
    frames = torch.tensor([12, 9, 12])
    samples = (torch.randn(960 * int(frames.sum())) * 3000).to(torch.int16)
    codes = encode_pool(codec, samples, frames)
    for clip, rows in zip(
        torch.split(samples, (960 * frames).tolist()),
        torch.split(codes, frames.tolist()),
        strict=True,
    ):
        wanted = codec.core.encode(clip[None, None].float() / 32768).audio_codes[0]
        assert torch.equal(rows.t().long(), wanted)
    encoder = {k: v.clone() for k, v in codec.core.acoustic_encoder.state_dict().items()}
    logged: list[str] = []
    settings = RefineSettings(seconds=60.0, max_steps=8, batch=2, crop_frames=4, log_every=7)
    settings.warmup, settings.learning_rate = 1, 3e-3
    refine_decoder(codec, CodePool(samples, codes), settings, logged.append)
    mel = [float(line.split(" mel ")[1].split()[0]) for line in logged if " mel " in line]
    assert mel[-1] < mel[0]
    after = codec.core.acoustic_encoder.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in encoder.items())


def test_two_codec_runs_are_one(codec: TrainableCodec, tmp_path: Path) -> None:
    state = copy.deepcopy(codec.state_dict())
    noise = (torch.randn(960 * 60) * 3000).to(torch.int16)
    results = []
    for parts in ((4,), (2, 2)):
        codec.load_state_dict(state)
        torch.manual_seed(6)
        earlier: dict[str, Any] | None = None
        for steps in parts:
            settings = CodecSettings(
                seconds=600.0, total_seconds=1e9, max_steps=steps, total_steps=4, batch=2
            )
            settings.crop_frames, settings.warmup, settings.seed_steps = 6, 1, (0, 1)

            def keep(made: dict[str, Any]) -> None:
                torch.save(made, tmp_path / "state.pt")

            pool = AudioPool(noise, len(noise))
            train_codec(codec, pool, settings, lambda _: None, earlier=earlier, keep=keep)
            earlier = torch.load(tmp_path / "state.pt")
            torch.manual_seed(98)
        assert earlier is not None and earlier["steps"] == 4
        results.append(copy.deepcopy(codec.state_dict()))
    assert all(torch.equal(results[1][name], tensor) for name, tensor in results[0].items())
    name = "core.fc2.weight"
    assert not torch.equal(results[0][name], state[name])


def test_gains_stop_at_full_scale() -> None:
    waves = torch.tensor([[0.1, -0.2], [0.5, 0.25], [0.4, -0.5]])
    louder = at_gain(waves, torch.tensor([12.0, 12.0, -12.0]))
    assert torch.allclose(louder[0], waves[0] * 10**0.6)
    assert torch.allclose(louder[1], waves[1] * 0.99 / 0.5)
    assert torch.allclose(louder[2], waves[2] * 10**-0.6)


def test_snake_gradients() -> None:
    x = torch.randn(2, 3, 5, dtype=torch.double, requires_grad=True)
    alpha = (torch.rand(1, 3, 1, dtype=torch.double) + 0.5).requires_grad_(True)
    assert torch.autograd.gradcheck(FusedSnake.apply, (x, alpha))
