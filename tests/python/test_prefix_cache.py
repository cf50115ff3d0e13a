"""Voices whose beginning of the prompt is computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from higgs_rt import Runtime
from higgs_rt.errors import InvalidRequestError
from higgs_rt.speech import Speech

LINES = ["The sun rises in the east.", "Rain is falling on the roof.", "The sun rises in the east."]


def spoken(prefix_cache: float, voices: Path) -> tuple[list[Speech], list[int], int]:
    """The lines in a voice, the prompt rows that each has cost, and the positions found."""
    with Runtime.load(prefix_cache=prefix_cache, voices=voices) as runtime:
        answers, rows = [], [0]
        for line in LINES:
            answers.append(runtime.speak(line, voice="slt", seed=5))
            rows.append(runtime.stats.prompt_rows)
        stats = runtime.stats
        assert stats.free_blocks == stats.total_blocks
        assert (stats.cached_blocks > 0) == (prefix_cache > 0)
        return answers, np.diff(rows).tolist(), stats.prefix_hits


def test_a_second_request_is_equal_and_computes_less(tmp_path: Path) -> None:
    plain, plain_rows, none = spoken(0.0, tmp_path)
    cached, rows, hits = spoken(0.25, tmp_path)
    assert none == 0
    assert rows[0] == plain_rows[0]
    assert rows[1] < 0.4 * plain_rows[1]  # the voice is most of the prompt
    assert rows[2] <= 16 < plain_rows[2]  # only the incomplete block at the end
    assert hits == sum(plain_rows) - sum(rows)
    for one, other in zip(cached, plain, strict=True):
        assert np.array_equal(one.frames, other.frames)
        assert np.array_equal(one.samples, other.samples)


def test_together_and_through_chunks_of_the_prompt(tmp_path: Path) -> None:
    def codes(prefix_cache: float) -> list[np.ndarray]:
        with Runtime.load(
            prefix_cache=prefix_cache, voices=tmp_path, max_batch=3, max_step_tokens=40
        ) as runtime:
            streams = [runtime.submit(line, voice="rms", seed=7) for line in LINES * 2]
            made = [stream.result().frames for stream in streams]
            assert (runtime.stats.prefix_hits > 0) == (prefix_cache > 0)
            return made

    for one, other in zip(codes(1.0), codes(0.0), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_between_0_and_1(share: float) -> None:
    with pytest.raises(InvalidRequestError, match=r"\[prefix_cache\] expected a share of 0..1"):
        Runtime.load(prefix_cache=share)
