"""Model directories: finding their files, and random checkpoints for tests and benchmarks."""

from higgs_rt.checkpoint.files import DEMO_DIRECTORY, ModelFiles, resolve_model
from higgs_rt.checkpoint.random_checkpoint import LmShape, write_random_checkpoint
from higgs_rt.checkpoint.random_codec import small_codec_config, write_random_codec

__all__ = [
    "DEMO_DIRECTORY",
    "LmShape",
    "ModelFiles",
    "resolve_model",
    "small_codec_config",
    "write_random_checkpoint",
    "write_random_codec",
]
