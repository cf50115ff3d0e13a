"""Evaluation of speech by recognising it again."""

from higgs_rt.evaluation.recognisers import Recogniser, make_recogniser
from higgs_rt.evaluation.systems import (
    LineResult,
    SystemResult,
    Utterance,
    read_recordings,
    score_system,
    speak_lines,
)
from higgs_rt.evaluation.wer import Score, read_lines, score, spoken_words

__all__ = [
    "LineResult",
    "Recogniser",
    "Score",
    "SystemResult",
    "Utterance",
    "make_recogniser",
    "read_lines",
    "read_recordings",
    "score",
    "score_system",
    "speak_lines",
    "spoken_words",
]
