"""The speaker-consistency term (issue 7): formula, zero, gradient, and a run with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from higgs_rt.errors import CheckpointError
from higgs_rt.training.labels import IGNORE
from higgs_rt.training.lora.config import parse_config
from higgs_rt.training.lora.speaker import SpeakerTerm
from higgs_rt.training.lora.state import TrainingError
from higgs_rt.training.lora.trainer import Trainer
from test_lora_run import CODES, fields, write_data

BOOKS, COUNT, WIDTH, CLIPS, ROWS = 3, 7, 4, 3, 40


@pytest.fixture()
def term() -> SpeakerTerm:
    draw = torch.Generator().manual_seed(0)
    return SpeakerTerm(torch.randn(BOOKS, COUNT, WIDTH, generator=draw) * 3 + 1)


@pytest.fixture()
def rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random logits with BOS and EOS, labels (some ignored, some EOS), and clips out of order."""
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(ROWS, BOOKS, COUNT + 2, generator=draw)
    labels = torch.randint(0, COUNT, (ROWS, BOOKS), generator=draw)
    labels[::9, 1] = IGNORE
    labels[::11, 2] = COUNT + 1
    return logits, labels, torch.randint(0, CLIPS, (ROWS,), generator=draw) * 5 + 2


def by_hand(codes: Any, logits: Any, labels: Any, clips: Any) -> float:
    """The docstring's formula, in numpy, label by label."""
    total = 0.0
    for clip in np.unique(clips):
        sides = []
        for target in (False, True):
            vector: list[Any] = []
            deviations: list[Any] = []
            for k in range(BOOKS):
                z = (codes[k] - codes[k].mean(0)) / codes[k].std(0)
                shares = []
                for row in np.flatnonzero(clips == clip):
                    if 0 <= labels[row, k] < COUNT:
                        p = np.exp(logits[row, k, :COUNT])
                        shares.append(np.eye(COUNT)[labels[row, k]] if target else p / p.sum())
                q = np.mean(shares, axis=0)
                mean = q @ z
                vector += list(mean)
                deviations += list(np.sqrt(q @ z**2 - mean**2 + 1e-4) - 1)
            sides.append(np.array(vector + deviations))
        ours, theirs = sides
        total += 1 - ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
    return total


def test_it_is_the_formula(rows: Any) -> None:
    codes = torch.randn(BOOKS, COUNT, WIDTH, generator=torch.Generator().manual_seed(0)) * 3 + 1
    got = float(SpeakerTerm(codes)(*rows))
    expected = by_hand(
        codes.double().numpy(),
        rows[0].double().numpy(),
        rows[1].numpy(),
        rows[2].numpy(),
    )
    assert got == pytest.approx(expected, rel=1e-4)
    assert got > 0.1


def test_equal_columns_cost_nothing(term: SpeakerTerm, rows: Any) -> None:
    _, labels, clips = rows
    certain = torch.nn.functional.one_hot(labels.clamp(0, COUNT - 1), COUNT + 2) * 60.0
    assert float(term(certain, labels, clips)) == pytest.approx(0.0, abs=1e-5)


def test_another_speaker_costs_more_than_another_order(term: SpeakerTerm, rows: Any) -> None:
    """The term knows the distribution of a clip's codes, not their order."""
    _, labels, _ = rows
    labels = labels.clamp(0, COUNT - 1)
    clips = torch.zeros(ROWS, dtype=torch.long)
    turned = torch.nn.functional.one_hot(labels.roll(1, 0), COUNT + 2) * 60.0
    other = torch.nn.functional.one_hot((labels + 1) % 2, COUNT + 2) * 60.0
    assert float(term(turned, labels, clips)) == pytest.approx(0.0, abs=1e-5)
    assert float(term(other, labels, clips)) > 0.1


def test_its_gradient_is_the_slope(term: SpeakerTerm, rows: Any) -> None:
    """Against central differences; the logits of BOS and EOS and rows without a code have none."""
    logits, labels, clips = rows
    labels[5] = IGNORE
    logits.requires_grad_()
    term(logits, labels, clips).backward()
    gradient = logits.grad
    assert gradient is not None
    assert bool((gradient[..., COUNT:] == 0).all()) and bool((gradient[5] == 0).all())
    draw = torch.Generator().manual_seed(2)
    for _ in range(5):
        way = torch.randn(logits.shape, generator=draw)
        with torch.no_grad():
            ahead, behind = (term(logits + s * 1e-2 * way, labels, clips) for s in (1, -1))
        slope = float(ahead - behind) / 2e-2
        assert float((gradient * way).sum()) == pytest.approx(slope, rel=2e-2, abs=2e-4)
    with torch.no_grad():
        downhill = term(logits - 1.0 * gradient / gradient.norm(), labels, clips)
    assert float(downhill) < float(term(logits, labels, clips).detach()) - 1e-3


def test_a_run_reports_and_lowers_it(random_model: Path, tmp_path: Path) -> None:
    """Off by default; when on, it is part of the loss, however a step is divided."""
    data = write_data(tmp_path / "data")
    one = {"optimizer": {"steps": 1}, "validation": {"every": 0, "share": 0.0}}
    found = {}
    for name, weight, batch in (
        ("off", 0.0, {"max_positions": 4000, "accumulation": 1}),
        ("whole", 2.0, {"max_positions": 4000, "accumulation": 1}),
        ("parts", 2.0, {"max_positions": 4000, "max_rows": 7, "accumulation": 2}),
    ):
        made = fields(random_model, data, tmp_path / name, **one, batch=batch)
        made["lora"]["dropout"] = 0.0
        made["objective"] = {"speaker_weight": weight}
        trainer = Trainer(parse_config(made, "test"))
        result = trainer.stepper.step(0)
        assert result is not None
        found[name] = result
    off, whole, parts = found["off"], found["whole"], found["parts"]
    assert off.speaker is None and whole.speaker is not None and whole.speaker > 0
    assert whole.loss == pytest.approx(off.loss + 2.0 * whole.speaker, abs=1e-5)
    assert parts.loss == pytest.approx(whole.loss, abs=1e-5)
    assert parts.speaker == pytest.approx(whole.speaker, abs=1e-6)


def test_another_codec_does_not_resume(random_model: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    made = fields(random_model, data, tmp_path / "run", optimizer={"steps": 1})
    made["objective"] = {"speaker_weight": 1.0}
    Trainer(parse_config(made, "test"), say=lambda _: None).train()
    made["codec"] = str(random_model / "codec")
    with pytest.raises(TrainingError, match=r"state: codec\] expected"):
        Trainer(parse_config(made, "test")).train()


def test_codebooks_of_another_size_are_refused(random_model: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"expected 8 codebooks of 99 .*got 8 of {CODES}"):
        SpeakerTerm.load(random_model / "codec", 8, 99)
