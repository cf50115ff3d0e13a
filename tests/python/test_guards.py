"""The guard against loops, beside its definition, one frame after another."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from higgs_rt.guards import Guard, GuardLimits

LIMITS = GuardLimits(loop_seconds=0.4, longest_period=0.2)  # ten frames, periods of up to five
PERIODS, LEAST = 5, 10


def first_loop(codes: list[int]) -> int | None:
    """How many frames to keep: a run grows with a repeat and falls by four without."""
    runs = [0] * PERIODS
    for index, code in enumerate(codes):
        for period in range(1, PERIODS + 1):
            repeats = index >= period and codes[index - period] == code
            runs[period - 1] = runs[period - 1] + 1 if repeats else max(0, runs[period - 1] - 4)
            if runs[period - 1] >= max(LEAST, 3 * period):
                return index + 1
    return None


def as_frames(codes: list[int]) -> NDArray[np.int32]:
    return np.tile(np.array(codes, np.int32), (8, 1))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(0, 2), max_size=80),
    st.lists(st.integers(0, 30), max_size=8),
    st.integers(1, 3),
)
def test_loops_are_found_however_frames_arrive(
    codes: list[int], cuts: list[int], values: int
) -> None:
    codes = [code % values for code in codes]
    guard, kept, left = Guard(25.0, 960, LIMITS), 0, codes
    for cut in [*cuts, len(codes)]:
        part, left = left[:cut], left[cut:]
        found = guard.watch_codes(as_frames(part))
        if found is not None:
            assert kept + found == first_loop(codes)
            return
        kept += len(part)
    assert first_loop(codes) is None
