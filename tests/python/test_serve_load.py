"""A few seconds of the load test; benchmarks/serve_load.py has the long form."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "serve_load.py"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("serve_load", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["serve_load"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the script uses asyncio.timeout")
def test_disconnects_and_nonsense_do_no_harm(tmp_path: Path) -> None:
    arguments = ["--clients", "16", "--seconds", "4", "--max-batch", "4", "--max-queue", "4"]
    report = load_script().main([*arguments, "--json", str(tmp_path / "report.json")])
    # Seconds are too short to tell whether memory is flat and clients are treated alike.
    faults = [one for one in report["faults"] if not one.startswith(("memory", "unfair"))]
    assert faults == []
    assert report["outcomes"]["spoken"] > 0
    assert report["outcomes"]["left"] > 0
    assert report["outcomes"]["refused 503"] > 0
