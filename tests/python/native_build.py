"""The C++ build whose programs and package the tests use.

`make test-python` builds it and sets HIGGS_RT_BUILD_DIR; without that, such tests are skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "HIGGS_RT_BUILD_DIR"


def build_directory() -> Path:
    """The build directory; skips the test when the variable is not set."""
    named = os.environ.get(VARIABLE)
    if not named:
        pytest.skip(f"${VARIABLE} names no build directory (make test-python sets it)")
    return Path(named).resolve()
