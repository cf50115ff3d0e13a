"""Write the manifests of TensorRT plans of the golden language models.

    PYTHONPATH=python:. python tests/golden/make_tensorrt_golden.py

Needs the extra tensorrt-rtx, no GPU. The plans themselves are not kept: what reads a manifest is
tested with these, so that builder and runtime cannot drift apart.

    tensorrt/constants.json   bf16, from lm/original
    tensorrt/inputs.json      fp32 with weights as inputs, from lm/transformers
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent
LIMITS = ("--max-batch", "4", "--max-seq-len", "128", "--max-prefill", "16")
COMMON = ("--backend", "tensorrt_rtx", "--targets", "sm89,sm120", "--component", "decoder", *LIMITS)
# Name of the manifest: the golden checkpoint and the options of its own.
PLANS: dict[str, tuple[str, tuple[str, ...]]] = {
    "constants": ("original", ("--precision", "bf16")),
    "inputs": ("transformers", ("--precision", "fp32", "--weights", "inputs")),
}


def main() -> None:
    """Build each plan in a folder of its own and keep its manifest."""
    (GOLDEN / "tensorrt").mkdir(exist_ok=True)
    for name, (layout, options) in PLANS.items():
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "build_engine", "--model", str(GOLDEN / "lm" / layout)]
            subprocess.run([*command, "--output", folder, *COMMON, *options], check=True)
            text = (Path(folder) / "manifest.json").read_text(encoding="utf-8")
            (GOLDEN / "tensorrt" / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
