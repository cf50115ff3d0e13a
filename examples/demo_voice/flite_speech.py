"""Speech from Debian's flite libraries (libflite1 2.2), with the time span of every written word.

Uses the C API through ctypes, so that one process speaks many sentences without starting a program
for each. The libraries are looked up by name, first in the folder given to :class:`Flite` (an
unpacked ``libflite1`` package), then on the loader's path.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

VOICES = ("slt", "rms", "awb", "kal16")
# slt, awb and kal16 speak fast; slowed down to the pace of rms (1.6 frames a letter) they are
# understood as well, and each sound has more codes.
STRETCH = {"slt": 1.15, "rms": 1.0, "awb": 1.2, "kal16": 1.3}
SAMPLE_RATE = 16_000

_P = ctypes.c_void_p
_S = ctypes.c_char_p


class _Voice(ctypes.Structure):
    """The head of flite's ``cst_voice``."""

    _fields_ = [("name", _S), ("features", _P)]


class _Wave(ctypes.Structure):
    """The head of flite's ``cst_wave``."""

    _fields_ = [
        ("type", _S),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    ]


@dataclass(frozen=True)
class Speech:
    """One spoken sentence.

    ``samples`` are int16 at 16 kHz; ``word_spans`` is float32 [words, 2], start and end in seconds
    of each whitespace-separated word of the text (NaN where flite gave that word no sound).
    """

    samples: npt.NDArray[np.int16]
    word_spans: npt.NDArray[np.float32]


class Flite:
    """flite with the voices slt, rms, awb (statistical) and kal16 (diphone)."""

    def __init__(self, folder: Path | None = None) -> None:
        def load(name: str) -> ctypes.CDLL:
            file = f"lib{name}.so.1"
            path = folder / file if folder is not None else Path(file)
            return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)

        self._lib = lib = load("flite")
        load("flite_cmulex")
        load("flite_usenglish")
        for name, result, arguments in (
            ("flite_synth_text", _P, [_S, _P]),
            ("utt_wave", ctypes.POINTER(_Wave), [_P]),
            ("utt_relation", _P, [_P, _S]),
            ("relation_head", _P, [_P]),
            ("item_next", _P, [_P]),
            ("item_as", _P, [_P, _S]),
            ("item_parent", _P, [_P]),
            ("item_feat_float", ctypes.c_float, [_P, _S]),
            ("delete_utterance", None, [_P]),
            ("feat_set_float", None, [_P, _S, ctypes.c_float]),
        ):
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
        lib.flite_init()
        self._voices: dict[str, int] = {}
        for voice in VOICES:
            register = getattr(load(f"flite_cmu_us_{voice}"), f"register_cmu_us_{voice}")
            register.restype, register.argtypes = _P, [_S]
            self._voices[voice] = register(None)
            features = ctypes.cast(self._voices[voice], ctypes.POINTER(_Voice)).contents.features
            lib.feat_set_float(features, b"duration_stretch", STRETCH[voice])

    def speak(self, text: str, voice: str) -> Speech:
        """Speaks `text` (ASCII) with `voice`, at its pace of STRETCH.

        Raises ValueError if flite makes nothing of it.
        """
        lib = self._lib
        utterance = lib.flite_synth_text(text.encode("ascii"), self._voices[voice])
        if not utterance:
            raise ValueError(f"[flite] expected an utterance for {text!r}, got none")
        try:
            wave = lib.utt_wave(utterance).contents
            if wave.sample_rate != SAMPLE_RATE or wave.num_channels != 1:
                raise ValueError(
                    f"[flite] expected mono {SAMPLE_RATE} Hz, got {wave.num_channels} channels at "
                    f"{wave.sample_rate} Hz from voice {voice}"
                )
            samples = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).astype(np.int16)
            return Speech(samples, self._word_spans(utterance, len(text.split())))
        finally:
            lib.delete_utterance(utterance)

    def _word_spans(self, utterance: int, words: int) -> npt.NDArray[np.float32]:
        """Start and end of each token, from the ends of the segments under it."""
        lib = self._lib
        index: dict[int, int] = {}
        token = lib.relation_head(lib.utt_relation(utterance, b"Token"))
        while token:
            index[token] = len(index)
            token = lib.item_next(token)
        spans = np.full((max(words, len(index)), 2), np.nan, np.float32)
        segment = lib.relation_head(lib.utt_relation(utterance, b"Segment"))
        start = 0.0
        while segment:
            end = float(lib.item_feat_float(segment, b"end"))
            syllable = lib.item_parent(lib.item_as(segment, b"SylStructure"))
            word = lib.item_parent(syllable) if syllable else None
            owner = lib.item_parent(lib.item_as(word, b"Token")) if word else None
            i = index.get(owner, -1) if owner else -1
            if i >= 0:
                spans[i, 0] = np.fmin(spans[i, 0], start)
                spans[i, 1] = end
            start = end
            segment = lib.item_next(segment)
        return spans[:words]
