"""higgs_rt: a native runtime for Higgs Audio v2, text to speech.

    from higgs_rt import Runtime

    with Runtime.load() as runtime:
        runtime.speak("The sun rises in the east.").save("speech.wav")

Importing this package loads neither the native module nor torch; names are resolved when used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from higgs_rt.errors import (
        AudioError,
        CancelledError,
        CheckpointError,
        HiggsError,
        InvalidRequestError,
        QueueFullError,
        VoiceError,
    )
    from higgs_rt.options import SpeakOptions
    from higgs_rt.prompt import Profile, Reference
    from higgs_rt.runtime import Runtime
    from higgs_rt.speech import AsyncSpeechStream, LengthStopWarning, Speech, SpeechStream
    from higgs_rt.voices import Voice, VoiceStore

_HOMES = {
    "AsyncSpeechStream": "speech",
    "AudioError": "errors",
    "CancelledError": "errors",
    "CheckpointError": "errors",
    "HiggsError": "errors",
    "InvalidRequestError": "errors",
    "LengthStopWarning": "speech",
    "Profile": "prompt",
    "QueueFullError": "errors",
    "Reference": "prompt",
    "Runtime": "runtime",
    "SpeakOptions": "options",
    "Speech": "speech",
    "SpeechStream": "speech",
    "Voice": "voices",
    "VoiceError": "errors",
    "VoiceStore": "voices",
}

__all__ = [
    "AsyncSpeechStream",
    "AudioError",
    "CancelledError",
    "CheckpointError",
    "HiggsError",
    "InvalidRequestError",
    "LengthStopWarning",
    "Profile",
    "QueueFullError",
    "Reference",
    "Runtime",
    "SpeakOptions",
    "Speech",
    "SpeechStream",
    "Voice",
    "VoiceError",
    "VoiceStore",
]


def __getattr__(name: str) -> Any:  # the protocol of modules
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("higgs_rt")
        except PackageNotFoundError:  # used in place, without installation
            return "0+unknown"
    if name in _HOMES:
        return getattr(import_module(f"higgs_rt.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
