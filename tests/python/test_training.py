"""Training code against transformers: packed forward, codec forward, losses, a few steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from higgs_rt.training.codec_model import FusedSnake, TrainableCodec, import_codec_classes
from higgs_rt.training.codec_refine import CodePool, RefineSettings, refine_decoder
from higgs_rt.training.codec_train import encode_pool
from higgs_rt.training.lm_model import ForwardSettings, PackedBatch, forward, losses
from higgs_rt.training.lm_train import LmSettings, Source, train_lm
from higgs_rt.training.turns import ClipTable, TurnShape, TurnTokens, compose

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


def test_a_few_steps_learn(model: Any, table: ClipTable) -> None:
    settings = LmSettings(
        seconds=60.0,
        max_steps=30,
        learning_rate=2e-2,
        warmup_steps=2,
        dropout=0.0,
        guided=((1, 0, False), (1, 2, True)),
    )
    numerics = ForwardSettings(dtype=torch.float32)
    before = losses(model, cloned(table), numerics)
    source = Source("clones", lambda: cloned(table), 1.0)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kept: list[dict[str, Any]] = []

    def run(moments: dict[str, Any] | None) -> int:
        device = torch.device("cpu")
        return train_lm(model, [source], settings, device, lambda text: None, kept.append, moments)

    steps = run(None)
    after = losses(model, cloned(table), numerics)
    count = float(kept[-1]["state"][0]["step"])
    settings.max_steps = 2
    run(kept[-1])  # goes on with the moments: the optimizer's count of steps goes on too
    assert float(kept[-1]["state"][0]["step"]) == count + 2
    model.load_state_dict(state)
    assert steps == 30
    assert float(after.audio.mean()) < 0.8 * float(before.audio.mean())
    assert float(after.text) < float(before.text)


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


def test_snake_gradients() -> None:
    x = torch.randn(2, 3, 5, dtype=torch.double, requires_grad=True)
    alpha = (torch.rand(1, 3, 1, dtype=torch.double) + 0.5).requires_grad_(True)
    assert torch.autograd.gradcheck(FusedSnake.apply, (x, alpha))
