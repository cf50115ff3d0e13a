"""Speech recognisers for evaluation, by name.

`pocketsphinx` uses its packaged English model with a flat unigram language model over the words of
the file that is evaluated: every word is equally likely anywhere, so nothing but the sound tells
words apart. `transformers:NAME` is any speech recognition model of the transformers library.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from higgs_rt.audio import pcm16, resample
from higgs_rt.errors import HiggsError, InvalidRequestError
from higgs_rt.evaluation.wer import spoken_words

_RATE = 16000  # Hz, of both recognisers


class Recogniser(Protocol):
    """Turns speech into words."""

    def transcribe(self, samples: NDArray[np.float32], sample_rate: int) -> list[str]:
        """Lower-case words heard in mono fp32 samples [n]."""
        ...


def make_recogniser(name: str, words: Iterable[str]) -> Recogniser:
    """The recogniser called `name`; `words` are those that the evaluated texts contain."""
    kind, _, model = name.partition(":")
    if name == "pocketsphinx":
        return PocketSphinx(words)
    if kind == "transformers" and model:
        return TransformersRecogniser(model)
    raise InvalidRequestError(
        f"[recogniser] expected 'pocketsphinx' or 'transformers:NAME', got {name!r}"
    )


def flat_unigram(words: Iterable[str]) -> str:
    """An ARPA language model in which every word, and the end, is equally likely."""
    vocabulary = sorted(set(words))
    chance = math.log10(1 / (len(vocabulary) + 1))
    lines = ["\\data\\", f"ngram 1={len(vocabulary) + 2}", "", "\\1-grams:", "-99 <s>"]
    lines += [f"{chance:.6f} {word}" for word in ["</s>", *vocabulary]]
    return "\n".join([*lines, "", "\\end\\", ""])


class PocketSphinx:
    """PocketSphinx with its packaged US English acoustic model and dictionary."""

    def __init__(self, words: Iterable[str]) -> None:
        """Raises InvalidRequestError naming the words that the dictionary lacks."""
        try:
            import pocketsphinx
        except ImportError as error:
            raise HiggsError(
                "[recogniser] expected pocketsphinx (pip install 'higgs-rt[evaluate]'), "
                f"got: {error}"
            ) from None
        vocabulary = sorted(set(words))
        pronunciations = pronunciations_of(vocabulary)
        unknown = [word for word in vocabulary if word not in pronunciations]
        if unknown:
            raise InvalidRequestError(
                f"[recogniser pocketsphinx] expected words of its dictionary, got "
                f"{', '.join(unknown[:10])}" + (" and more" if len(unknown) > 10 else "")
            )
        with tempfile.TemporaryDirectory() as directory:
            model, dictionary = Path(directory) / "words.arpa", Path(directory) / "words.dict"
            model.write_text(flat_unigram(vocabulary), encoding="utf-8")
            # The whole dictionary has 135,000 words, of which the language model allows these.
            lines = (line for word in vocabulary for line in pronunciations[word])
            dictionary.write_text("".join(lines), encoding="utf-8")
            self._decoder = pocketsphinx.Decoder(
                lm=str(model), dict=str(dictionary), samprate=_RATE, loglevel="FATAL"
            )

    def transcribe(self, samples: NDArray[np.float32], sample_rate: int) -> list[str]:
        """Lower-case words heard in mono fp32 samples [n]; none in silence."""
        data = pcm16(resample(samples, sample_rate, _RATE))
        if not len(data):
            return []
        self._decoder.start_utt()
        self._decoder.process_raw(data.tobytes(), full_utt=True)
        self._decoder.end_utt()
        heard = self._decoder.hyp()
        return [] if heard is None else spoken_words(heard.hypstr)


def pronunciations_of(words: Iterable[str]) -> dict[str, list[str]]:
    """The packaged dictionary's lines for each of `words` that it can pronounce."""
    import pocketsphinx

    wanted = set(words)
    found: dict[str, list[str]] = {}
    path = Path(pocketsphinx.get_model_path()) / "en-us" / "cmudict-en-us.dict"
    with path.open(encoding="utf-8") as file:
        for line in file:
            word = line.split(" ", 1)[0].split("(", 1)[0]  # "the(2)" is another way to say "the"
            if word in wanted:
                found.setdefault(word, []).append(line)
    return found


class TransformersRecogniser:
    """An automatic speech recognition pipeline of transformers."""

    def __init__(self, model: str) -> None:
        """`model` is a directory or a name on the Hugging Face hub."""
        try:
            from transformers import pipeline
        except ImportError as error:
            raise HiggsError(
                f"[recogniser transformers:{model}] expected transformers and torch, got: {error}"
            ) from None
        try:
            self._pipeline: Any = pipeline("automatic-speech-recognition", model=model)
        except Exception as error:  # many kinds: no such model here
            first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise HiggsError(
                f"[recogniser transformers:{model}] expected a speech recognition model, "
                f"got: {first}"
            ) from None

    def transcribe(self, samples: NDArray[np.float32], sample_rate: int) -> list[str]:
        """Lower-case words heard in mono fp32 samples [n]."""
        raw = resample(samples, sample_rate, _RATE)
        heard = self._pipeline({"raw": raw, "sampling_rate": _RATE})
        return spoken_words(str(heard["text"]))
