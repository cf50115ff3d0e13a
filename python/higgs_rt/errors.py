"""Exceptions of the package. Messages read ``[where] expected X, got Y``."""

from __future__ import annotations


class HiggsError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidRequestError(HiggsError, ValueError):
    """A request, or one of its parameters, is outside of what the runtime accepts."""


class AudioError(HiggsError, ValueError):
    """An audio file or array cannot be read, written or used as a reference."""


class CheckpointError(HiggsError):
    """A model directory, its configuration or one of its tensors is not what is expected."""


class VoiceError(HiggsError, ValueError):
    """A voice is unknown, or its file is malformed."""


class QueueFullError(HiggsError):
    """The request queue is at its limit; the request was not accepted."""


class CancelledError(HiggsError):
    """The request was cancelled before it finished."""
