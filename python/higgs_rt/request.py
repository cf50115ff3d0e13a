"""From the options of a speaking method to a native request."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from higgs_rt import _higgs_rt as native
from higgs_rt.errors import InvalidRequestError, VoiceError
from higgs_rt.options import (
    SpeakerSource,
    SpeakOptions,
    integer,
    or_own,
    real,
    sampling_of,
)
from higgs_rt.prompt import (
    AUTO,
    DEFAULT_MAX_TEXT_CHARS,
    Convention,
    Dialogue,
    Placement,
    Profile,
    Reference,
    Segment,
    SpeechSettings,
    TextSegment,
    TextTokenizer,
    Turn,
    build_prompt,
    check_language,
    check_text,
    normalize_text,
    num_positions,
    speaker_tags,
    spell_out,
)
from higgs_rt.prompt.normalize import SPEAKER_TAG
from higgs_rt.voices import Voice, VoiceStore
from higgs_rt.voices.encode import RecordingSource

# Generous upper bounds of slow speech, for requests without `max_seconds`.
_SECONDS_BASE = 5.0
_SECONDS_PER_CHAR = 0.2
_FASTEST = 0.2  # of these bounds: 25 characters a second, faster than anyone speaks
_MAX_SECONDS = 1e6  # of a request, however long its text is
_SECONDS_PER_WIDE_CHAR = 0.6  # a Chinese, Japanese or Korean character is a syllable or more


@dataclass(frozen=True, eq=False)
class Job:
    """The options of one call, checked and completed."""

    speakers: tuple[Reference | Profile, ...]
    scene: str | None
    placement: Placement
    normalize: bool
    language: str | None  # None: numbers stay as they are
    history: tuple[Reference, ...]
    max_turn_chars: int  # 0: no limit
    context_turns: int
    dialogue: Dialogue
    guards: bool
    sampling: native.SamplingParams
    max_seconds: float | None
    first_chunk_frames: int
    max_chunk_frames: int
    adapter: str = ""
    tags: tuple[str, ...] = ()  # speakers of the whole script


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
        settings: SpeechSettings,
    ) -> None:
        self._info = info
        self._tokenizer = tokenizer
        self._voices = voices
        self._convention = convention
        self._max_text_chars = max_text_chars
        self._settings = settings

    def job(self, options: SpeakOptions) -> Job:
        """The options, checked; the sampling has the seed that was given or drawn."""
        unknown = options.keys() - SpeakOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"speak() got an unexpected keyword argument {min(unknown)!r}")
        own = self._settings
        dialogue = options.get("dialogue") or own.dialogue
        if dialogue not in get_args(Dialogue):
            raise InvalidRequestError(
                f"[dialogue] expected one of {get_args(Dialogue)}, got {dialogue!r}"
            )
        language = options.get("language", AUTO)
        normalize = bool(options.get("normalize", True))
        seconds = options.get("max_seconds")
        return Job(
            speakers=tuple(self._speakers(options)),
            scene=options.get("scene"),
            placement=options.get("placement", "turns"),
            normalize=normalize,
            language=check_language(language) if normalize and language is not None else None,
            history=tuple(options.get("history", ())),
            max_turn_chars=or_own(
                "max_turn_chars", options.get("max_turn_chars"), own.max_turn_chars
            ),
            context_turns=or_own("context_turns", options.get("context_turns"), own.context_turns),
            dialogue=dialogue,
            guards=bool(options.get("guards", True)),
            sampling=sampling_of(options, own),
            max_seconds=None if seconds is None else self._seconds(seconds),
            first_chunk_frames=integer("first_chunk_frames", options.get("first_chunk_frames", 8)),
            max_chunk_frames=integer("max_chunk_frames", options.get("max_chunk_frames", 64)),
            adapter=self._adapter(options.get("adapter")),
        )

    def checked(self, text: str) -> str:
        """`text` when it can be spoken; InvalidRequestError otherwise."""
        check_text(text, max_chars=self._max_text_chars)
        return text

    def in_one_go(self, job: Job, text: str) -> str | None:
        """`text`, spelled out, when the model can speak it as one turn; None when it cannot."""
        if job.dialogue == "voices" and speaker_tags(text):
            return None
        if job.max_turn_chars and len(text) > 2 * job.max_turn_chars:
            return None
        if job.language is not None:
            text = spell_out(text, job.language)
        return None if 0 < job.max_turn_chars < len(text) else text

    def request(self, job: Job, text: str, *, stream: bool) -> native.Request:
        """One request for all of a text."""
        segments = self._prompt(job, _asked(job, text), job.speakers, job.history)
        return native.Request(
            [_native_segment(segment) for segment in segments],
            job.sampling,
            max_columns=self._max_columns(text, segments, job.max_seconds),
            stream=stream,
            first_chunk_frames=job.first_chunk_frames,
            max_chunk_frames=job.max_chunk_frames,
            adapter=job.adapter,
        )

    def asked(self, job: Job, turn: Turn) -> str:
        """What the prompt of a turn asks for, now and as history of later ones (spec 4.6, 4.7)."""
        if job.dialogue == "voices" or turn.speaker is None:
            return _asked(job, turn.text)
        return _asked(job, f"[SPEAKER{turn.speaker}] {turn.text}")

    def transcript(self, text: str, options: SpeakOptions) -> str:
        """A whole text as its prompts ask for it."""
        if (options.get("dialogue") or self._settings.dialogue) == "voices":
            text = SPEAKER_TAG.sub(" ", text)
        if not options.get("normalize", True):
            return text
        language = options.get("language", AUTO)
        if language is not None:
            text = spell_out(text, check_language(language))
        return normalize_text(text)

    def turn(
        self,
        job: Job,
        turn: Turn,
        context: Sequence[Reference],
        *,
        max_seconds: float | None,
        chunk_frames: tuple[int, int],
    ) -> native.Request:
        """A request for the frames of one turn, after as much of the context as there is room for.

        chunk_frames: those of the first chunk, and the most of a later one.
        """
        check_text(turn.text, max_chars=self._max_text_chars)
        text, speakers = self.asked(job, turn), job.speakers
        if job.dialogue == "voices":
            speakers = (self._voice_of(job, turn),) if job.speakers else ()
        heard = [*job.history, *context]
        while True:
            segments = self._prompt(job, text, speakers, heard)
            room = self._info.max_sequence - num_positions(segments)
            if not heard or room >= self._estimated_columns(text):
                break
            heard.pop(0)
        limit = self._max_columns(text, segments, None)
        if max_seconds is not None:
            extra = self._info.num_codebooks + 1
            limit = min(limit, math.ceil(max_seconds * self._frame_rate) + extra)
        return native.Request(
            [_native_segment(segment) for segment in segments],
            job.sampling,
            max_columns=limit,
            output=native.OutputKind.FRAMES,
            stream=True,
            first_chunk_frames=chunk_frames[0],
            max_chunk_frames=chunk_frames[1],
            adapter=job.adapter,
        )

    def _voice_of(self, job: Job, turn: Turn) -> Reference | Profile:
        number = turn.speaker or 0
        if number >= len(job.speakers):
            raise InvalidRequestError(
                f"[speakers] expected a voice for SPEAKER{number}, got {len(job.speakers)} voices"
            )
        return job.speakers[number]

    def check_script(self, job: Job, text: str) -> Job:
        """The job with the speakers of a whole script; each must have a voice."""
        tags = speaker_tags(text)
        for tag in tags:
            turn = Turn(text, int(tag.removeprefix("SPEAKER")))
            if job.dialogue == "voices" or job.speakers:
                self._voice_of(job, turn)
        return replace(job, tags=tuple(tags))

    def _prompt(
        self,
        job: Job,
        text: str,
        speakers: Sequence[Reference | Profile],
        history: Sequence[Reference],
    ) -> list[Segment]:
        """`text` is what `asked` returned: it is not normalised again."""
        return build_prompt(
            text,
            self._tokenizer,
            speakers=speakers,
            scene=job.scene,
            placement=job.placement,
            convention=self._convention,
            normalize=False,
            max_chars=max(len(text), DEFAULT_MAX_TEXT_CHARS),
            history=history,
            tags=job.tags,
        )

    def _adapter(self, name: str | None) -> str:
        known = self._info.adapters
        if not name:
            return ""
        if not isinstance(name, str) or name not in known:
            names = f"one of {', '.join(known)}" if known else "none: none were loaded"
            raise InvalidRequestError(f"[adapter] expected {names}, got {name!r}")
        return name

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

    @property
    def _frame_rate(self) -> float:
        return self._info.sample_rate / self._info.samples_per_frame

    def _estimated_columns(self, text: str) -> int:
        return math.ceil(estimated_seconds(text) * self._frame_rate) + self._info.num_codebooks + 1

    def _seconds(self, value: object) -> float:
        seconds = real("max_seconds", value)
        if not 0 < seconds < _MAX_SECONDS:
            raise InvalidRequestError(
                f"[max_seconds] expected more than 0 and less than {_MAX_SECONDS:g}, got {value}"
            )
        return seconds

    def _max_columns(
        self, text: str, segments: Sequence[Segment], max_seconds: float | None
    ) -> int:
        """Columns of the asked or estimated seconds, with BOS, EOS and the delay (spec 5)."""
        extra = self._info.num_codebooks + 1
        room = self._info.max_sequence - num_positions(segments)
        if room <= extra:
            raise InvalidRequestError(
                f"[text] expected a prompt of at most {self._info.max_sequence - extra - 1} "
                f"positions (max_sequence), got {num_positions(segments)}"
            )
        limit = (room - extra) / self._frame_rate
        if max_seconds is None:
            least = (estimated_seconds(text) - _SECONDS_BASE) * _FASTEST
            if limit < least:
                raise InvalidRequestError(
                    f"[text] expected room for at least {least:.0f} s of speech, got "
                    f"{limit:.0f} s beside a prompt of {num_positions(segments)} positions "
                    f"(max_sequence {self._info.max_sequence}); max_seconds takes what there is"
                )
            return min(self._estimated_columns(text), room)
        if max_seconds > limit:
            raise InvalidRequestError(
                f"[max_seconds] expected more than 0 and at most {limit:g} beside this prompt "
                f"(max_sequence), got {max_seconds}"
            )
        return math.ceil(max_seconds * self._frame_rate) + extra


def _asked(job: Job, text: str) -> str:
    return normalize_text(text) if job.normalize else text


def estimated_seconds(text: str) -> float:
    """A generous upper bound of the seconds that `text` takes to say."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    narrow = len(text) - wide
    return _SECONDS_BASE + _SECONDS_PER_CHAR * narrow + _SECONDS_PER_WIDE_CHAR * wide


def _native_segment(segment: Segment) -> native.PromptSegment:
    if isinstance(segment, TextSegment):
        return native.PromptSegment.text(segment.ids)
    return native.PromptSegment.audio(segment.codes)
