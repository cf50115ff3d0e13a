"""The options of the speaking methods, and the checks of single values."""

from __future__ import annotations

import numbers
import secrets
from collections.abc import Sequence
from typing import Literal, TypedDict

from higgs_rt import _higgs_rt as native
from higgs_rt.errors import InvalidRequestError
from higgs_rt.prompt import Dialogue, Placement, Profile, Reference, SpeechSettings
from higgs_rt.voices import Voice
from higgs_rt.voices.encode import RecordingSource

StreamRuleName = Literal["first_eos", "transformers"]
SpeakerSource = str | Voice | Reference | Profile


class SpeakOptions(TypedDict, total=False):
    """Options of every speaking method of `Runtime`. A request has at most one of the first three.

    voice: name of a stored voice, or a Voice.
    ref_audio: a recording to imitate (file, Audio, or samples with `ref_rate` in Hz), with
        `ref_text`, the words spoken in it. Needs torch; add it as a voice to encode it once.
    speakers: voices by name, Voice, Reference or Profile (a description in words) of SPEAKER0,
        SPEAKER1, … as tagged in the text: "[SPEAKER0] Hello. [SPEAKER1] Hi."
    scene: where it is recorded, or how it sounds. placement: references as "turns" with their
        transcripts, or in the "system" message. normalize: apply `normalize_text`, and before it,
        unless `language` is None, `spell_out` (numbers, units, dates; "auto" tells languages by
        their script).
    history: what was said before, text and codes, which the model hears again first.
    max_turn_chars, context_turns, dialogue: how long texts and dialogues are cut into turns.
        max_turn_chars 0: never cut. These, temperature, top_k and top_p: None takes the model's
        own settings, see `SpeechSettings`.
    adapter: name of one of `Runtime.load(adapters=...)`; None or "": the model without.
    guards: end a request that only makes silence or repeats itself.
    seed: None draws one; it is reported. temperature 0 is greedy; top_k 0 and top_p 1 are off.
    ras_window, ras_max_repeat: repetition-aware resampling; window 0 is off.
    stream_rule: "first_eos" (default) or "transformers" (parity).
    max_seconds: limit of all the speech; None estimates a generous one for each turn.
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
    language: str | None
    history: Sequence[Reference]
    max_turn_chars: int | None
    context_turns: int | None
    dialogue: Dialogue | None
    adapter: str | None
    guards: bool
    seed: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    ras_window: int
    ras_max_repeat: int
    stream_rule: StreamRuleName
    max_seconds: float | None
    first_chunk_frames: int
    max_chunk_frames: int


def or_own(field: str, value: int | None, own: int) -> int:
    """The given value, checked, or else the model's own."""
    return own if value is None else integer(field, value, 0)


def sampling_of(options: SpeakOptions, own: SpeechSettings) -> native.SamplingParams:
    """The sampling of a request, with the seed that was given or drawn."""
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
    temperature, top_p = options.get("temperature"), options.get("top_p")
    return native.SamplingParams(
        temperature=own.temperature if temperature is None else real("temperature", temperature),
        top_k=or_own("top_k", options.get("top_k"), own.top_k),
        top_p=own.top_p if top_p is None else real("top_p", top_p),
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


def real(field: str, value: object) -> float:
    """`value` as a float, else InvalidRequestError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidRequestError(f"[{field}] expected a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise InvalidRequestError(f"[{field}] expected a smaller number, got {value}") from None
