"""What a model says about itself: settings and sampling that a request does not give."""

from __future__ import annotations

from pathlib import Path

import pytest

from higgs_rt import CheckpointError
from higgs_rt.checkpoint.files import DEMO_DIRECTORY
from higgs_rt.options import sampling_of
from higgs_rt.prompt import SpeechSettings, read_settings


def test_settings_of_models(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == SpeechSettings()
    assert read_settings(DEMO_DIRECTORY).dialogue == "voices"
    path = tmp_path / "higgs_rt.json"
    path.write_text('{"max_turn_chars": 90}')
    assert read_settings(tmp_path) == SpeechSettings(max_turn_chars=90)
    for wrong, culprit in [
        ('{"max_turn_chars": 3}', "max_turn_chars.*8.*3"),
        ('{"context_turns": "2"}', "context_turns.*'2'"),
        ('{"dialogue": "both"}', "dialogue.*both"),
        ('{"temperature": "cool"}', "temperature.*0..2.*cool"),
        ('{"top_p": 0}', "top_p.*0"),
        ('{"top_k": -1}', "top_k.*-1"),
        ('{"turns": 1}', r"\['turns'\]"),
        ("[1]", "list"),
        ("{", "JSON"),
    ]:
        path.write_text(wrong)
        with pytest.raises(CheckpointError, match=culprit):
            read_settings(tmp_path)


def test_sampling_that_is_not_given_is_the_models_own() -> None:
    own = SpeechSettings(temperature=0.25, top_k=9, top_p=0.5)
    sampling = sampling_of({"temperature": None, "seed": 1}, own)
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.25, 9, 0.5)
    sampling = sampling_of({"temperature": 1.0, "top_k": 0, "top_p": 1.0}, own)
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (1.0, 0, 1.0)
