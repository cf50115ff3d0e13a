"""A TensorRT plan from a Higgs checkpoint: `python -m build_engine`, see docs/tensorrt.md."""

from build_engine.errors import BuildError, VerifyError

__all__ = ["BuildError", "VerifyError"]
