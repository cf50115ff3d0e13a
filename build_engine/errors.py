"""Errors of the builder. Messages read ``[where] expected X, got Y``."""

from __future__ import annotations

from higgs_rt.errors import HiggsError


class BuildError(HiggsError):
    """A plan cannot be built, or a plan folder is not what is expected."""


class VerifyError(BuildError):
    """A network does not compute what the native engine computes."""
