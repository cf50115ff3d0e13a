"""Stored reference voices: a recording is encoded once, its codes and transcript are kept."""

from higgs_rt.voices.encode import VoiceEncoder
from higgs_rt.voices.fingerprint import codec_fingerprint
from higgs_rt.voices.store import VoiceStore, default_directory
from higgs_rt.voices.voice import Voice, read_voice, write_voice

__all__ = [
    "Voice",
    "VoiceEncoder",
    "VoiceStore",
    "codec_fingerprint",
    "default_directory",
    "read_voice",
    "write_voice",
]
