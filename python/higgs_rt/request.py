"""From the options of a speaking method to a native request."""

from __future__ import annotations

import math
import numbers
import secrets
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

from higgs_rt import _higgs_rt as native
from higgs_rt.errors import InvalidRequestError, VoiceError
from higgs_rt.prompt import (
    Convention,
    Placement,
    Profile,
    Reference,
    Segment,
    TextSegment,
    TextTokenizer,
    build_prompt,
    num_positions,
)
from higgs_rt.voices import Voice, VoiceStore
from higgs_rt.voices.encode import RecordingSource

StreamRuleName = Literal["first_eos", "transformers"]
SpeakerSource = str | Voice | Reference | Profile

# Generous upper bounds of slow speech, for requests without `max_seconds`.
_SECONDS_BASE = 5.0
_SECONDS_PER_CHAR = 0.2
_FASTEST = 0.2  # of these bounds: 25 characters a second, faster than anyone speaks
_SECONDS_PER_WIDE_CHAR = 0.6  # a Chinese, Japanese or Korean character is a syllable or more


class SpeakOptions(TypedDict, total=False):
    """Options of every speaking method of `Runtime`. A request has at most one of the first three.

    voice: name of a stored voice, or a Voice.
    ref_audio: a recording to imitate (file, Audio, or samples with `ref_rate` in Hz), with
        `ref_text`, the words spoken in it. Needs torch; add it as a voice to encode it once.
    speakers: voices by name, Voice, Reference or Profile (a description in words) of SPEAKER0,
        SPEAKER1, … as tagged in the text: "[SPEAKER0] Hello. [SPEAKER1] Hi."
    scene: where it is recorded, or how it sounds. placement: references as "turns" with their
        transcripts, or in the "system" message. normalize: apply `normalize_text`.
    seed: None draws one; it is reported. temperature 0 is greedy; top_k 0 and top_p 1 are off.
    ras_window, ras_max_repeat: repetition-aware resampling; window 0 is off.
    stream_rule: "first_eos" (default) or "transformers" (parity).
    max_seconds: limit of the speech; None estimates a generous one from the text.
    first_chunk_frames, max_chunk_frames: streaming only, in frames of 40 ms; chunks double.
    """

    voice: str | Voice | None
    ref_audio: RecordingSource | None
    ref_text: str | None
    ref_rate: int | None
    speakers: Sequence[SpeakerSource]
    scene: str | None
    placement: Placement
    normalize: bool
    seed: int | None
    temperature: float
    top_k: int
    top_p: float
    ras_window: int
    ras_max_repeat: int
    stream_rule: StreamRuleName
    max_seconds: float | None
    first_chunk_frames: int
    max_chunk_frames: int


class RequestBuilder:
    """Checks options against a loaded model and builds its requests."""

    def __init__(
        self,
        info: native.ModelInfo,
        tokenizer: TextTokenizer,
        voices: VoiceStore,
        *,
        convention: Convention,
        max_text_chars: int,
    ) -> None:
        self._info = info
        self._tokenizer = tokenizer
        self._voices = voices
        self._convention = convention
        self._max_text_chars = max_text_chars

    def build(self, text: str, stream: bool, options: SpeakOptions) -> native.Request:
        """The request; its sampling has the seed that was given or drawn."""
        unknown = options.keys() - SpeakOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"speak() got an unexpected keyword argument {min(unknown)!r}")
        segments = build_prompt(
            text,
            self._tokenizer,
            speakers=self._speakers(options),
            scene=options.get("scene"),
            placement=options.get("placement", "turns"),
            convention=self._convention,
            normalize=options.get("normalize", True),
            max_chars=self._max_text_chars,
        )
        return native.Request(
            [_native_segment(segment) for segment in segments],
            _sampling(options),
            max_columns=self._max_columns(text, segments, options.get("max_seconds")),
            stream=stream,
            first_chunk_frames=integer("first_chunk_frames", options.get("first_chunk_frames", 8)),
            max_chunk_frames=integer("max_chunk_frames", options.get("max_chunk_frames", 64)),
        )

    def _speakers(self, options: SpeakOptions) -> list[Reference | Profile]:
        voice, recording = options.get("voice"), options.get("ref_audio")
        speakers = options.get("speakers", ())
        if isinstance(speakers, str) or not isinstance(speakers, Sequence):
            raise InvalidRequestError(f"[speakers] expected a list of speakers, got {speakers!r}")
        if (voice is not None) + (recording is not None) + bool(speakers) > 1:
            raise InvalidRequestError("[voice, ref_audio, speakers] expected one of them, got more")
        if recording is not None:
            return [self._recorded(recording, options)]
        if options.get("ref_text") is not None:
            raise InvalidRequestError("[ref_text] expected a ref_audio beside it, got none")
        return [self._speaker(one) for one in ([voice] if voice is not None else speakers)]

    def _recorded(self, recording: RecordingSource, options: SpeakOptions) -> Reference:
        words = options.get("ref_text")
        if words is not None and not isinstance(words, str):
            raise InvalidRequestError(f"[ref_text] expected a string, got {type(words).__name__}")
        if words is None or not words.strip():
            source = recording if isinstance(recording, str | Path) else "the reference recording"
            raise InvalidRequestError(f"[ref_text] expected the words spoken in {source}, got none")
        encoder = self._voices.encoder
        rate = options.get("ref_rate")
        return self._checked(encoder.encode("reference", recording, words, sample_rate=rate))

    def _speaker(self, speaker: SpeakerSource) -> Reference | Profile:
        if isinstance(speaker, str):
            return self._checked(self._voices.load(speaker))
        if isinstance(speaker, Voice):
            return self._checked(speaker)
        if not isinstance(speaker, Reference | Profile):
            raise InvalidRequestError(
                "[voice, speakers] expected a name, Voice, Reference or Profile, "
                f"got {type(speaker).__name__}"
            )
        return speaker

    def _checked(self, voice: Voice) -> Reference:
        codebooks, size = self._info.num_codebooks, self._info.codebook_vocab - 2
        if voice.codes.shape[0] != codebooks or int(voice.codes.max()) >= size:
            raise VoiceError(
                f"[voice {voice.name}] expected {codebooks} codebooks of codes below {size}, "
                f"got {voice.codes.shape[0]} with codes up to {int(voice.codes.max())}"
            )
        return voice.reference()

    def _max_columns(
        self, text: str, segments: Sequence[Segment], max_seconds: float | None
    ) -> int:
        """Columns of the asked or estimated seconds, with BOS, EOS and the delay (spec 5)."""
        extra = self._info.num_codebooks + 1
        frame_rate = self._info.sample_rate / self._info.samples_per_frame
        room = self._info.max_sequence - num_positions(segments)
        if room <= extra:
            raise InvalidRequestError(
                f"[text] expected a prompt of at most {self._info.max_sequence - extra - 1} "
                f"positions (max_sequence), got {num_positions(segments)}"
            )
        limit = (room - extra) / frame_rate
        if max_seconds is None:
            estimate = estimated_seconds(text)
            least = (estimate - _SECONDS_BASE) * _FASTEST
            if limit < least:
                raise InvalidRequestError(
                    f"[text] expected room for at least {least:.0f} s of speech, got "
                    f"{limit:.0f} s beside a prompt of {num_positions(segments)} positions "
                    f"(max_sequence {self._info.max_sequence}); max_seconds takes what there is"
                )
            return min(math.ceil(estimate * frame_rate) + extra, room)
        max_seconds = _real("max_seconds", max_seconds)
        if not 0 < max_seconds <= limit:
            raise InvalidRequestError(
                f"[max_seconds] expected more than 0 and at most {limit:g} beside this prompt "
                f"(max_sequence), got {max_seconds}"
            )
        return math.ceil(max_seconds * frame_rate) + extra


def estimated_seconds(text: str) -> float:
    """A generous upper bound of the seconds that `text` takes to say."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    narrow = len(text) - wide
    return _SECONDS_BASE + _SECONDS_PER_CHAR * narrow + _SECONDS_PER_WIDE_CHAR * wide


def _native_segment(segment: Segment) -> native.PromptSegment:
    if isinstance(segment, TextSegment):
        return native.PromptSegment.text(segment.ids)
    return native.PromptSegment.audio(segment.codes)


def _sampling(options: SpeakOptions) -> native.SamplingParams:
    rules = {
        "first_eos": native.StreamRule.FIRST_EOS,
        "transformers": native.StreamRule.TRANSFORMERS,
    }
    rule = options.get("stream_rule", "first_eos")
    if not isinstance(rule, str) or rule not in rules:
        raise InvalidRequestError(f"[stream_rule] expected one of {sorted(rules)}, got {rule!r}")
    seed = options.get("seed")
    if seed is None:
        seed = secrets.randbits(32)
    return native.SamplingParams(
        temperature=_real("temperature", options.get("temperature", 0.7)),
        top_k=integer("top_k", options.get("top_k", 0)),
        top_p=_real("top_p", options.get("top_p", 0.95)),
        ras_window=integer("ras_window", options.get("ras_window", 7)),
        ras_max_repeat=integer("ras_max_repeat", options.get("ras_max_repeat", 2)),
        seed=integer("seed", seed, 0, (1 << 64) - 1),
        rule=rules[rule],
    )


def integer(field: str, value: object, low: int = -(1 << 31), high: int = (1 << 31) - 1) -> int:
    """`value` as an int in low..high, else InvalidRequestError; by default what an int32 holds."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InvalidRequestError(f"[{field}] expected an integer, got {value!r}")
    if not low <= int(value) <= high:
        raise InvalidRequestError(f"[{field}] expected {low}..{high}, got {value}")
    return int(value)


def _real(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidRequestError(f"[{field}] expected a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise InvalidRequestError(f"[{field}] expected a smaller number, got {value}") from None
