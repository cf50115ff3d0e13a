"""Prompts token for token, under both conventions (spec 4.1-4.5).

The expectations are written out by hand. Those of the transformers convention were compared with
the output of the released processor's chat template when this file was written; they are tokenised
as the processor does it: the rendered string as one text, placeholders expanded.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from higgs_rt.errors import CheckpointError, InvalidRequestError
from higgs_rt.prompt import (
    AudioClip,
    AudioSegment,
    Message,
    Profile,
    Reference,
    TextTokenizer,
    build_prompt,
    encode_messages,
    expanded_ids,
    num_positions,
    speech_messages,
)
from llama_tokenizer import byte_ids, special_tokens, write_llama_tokenizer

SYSTEM = "<|start_header_id|>system<|end_header_id|>\n\n"
USER = "<|start_header_id|>user<|end_header_id|>\n\n"
ASSISTANT = "<|start_header_id|>assistant<|end_header_id|>\n\n"
BEGIN = "<|begin_of_text|>"
EOT = "<|eot_id|>"
INSTRUCTION = "Generate audio following instruction."
SUFFIX = [ASSISTANT, "<|audio_out_bos|>"]
MULTISPEAKER = (
    "You are an AI assistant designed to convert text into speech.\nIf the user's message includes "
    "a [SPEAKER*] tag, do not read out the tag and generate speech for the following text, using "
    "the specified voice.\nIf no speaker tag is present, select a suitable voice on your own."
)


def codes(frames: int, seed: int) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, 1024, (8, frames)).astype(np.int32)


A, B = codes(5, 1), codes(11, 2)
REF_A, REF_B = Reference(A, "Who is it?"), Reference(B, "It is me.")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> TextTokenizer:
    return TextTokenizer.load(path)


@pytest.fixture(scope="module")
def raw(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))


def clip_ids(frames: int, placeholder: str) -> list[int]:
    """T + 9 positions: T + 2 placeholders, then 7 delay tokens."""
    special = special_tokens()
    delay = special["<|reserved_special_token_6|>"]
    return [special[placeholder]] * (frames + 2) + [delay] * 7


def original_ids(raw: Tokenizer, pieces: list[str | tuple[int, str]]) -> list[int]:
    """Every piece tokenised alone; (frames, placeholder) is a clip."""
    ids: list[int] = []
    for piece in pieces:
        if isinstance(piece, str):
            ids += raw.encode(piece, add_special_tokens=False).ids
        else:
            ids += clip_ids(*piece)
    return ids


def processor_ids(raw: Tokenizer, rendered: str, frames: list[int]) -> list[int]:
    """The rendered string in one go, each <|AUDIO_OUT|> expanded as transformers does it."""
    left = iter(frames)

    def expand(_: re.Match[str]) -> str:
        columns = next(left) + 9
        return "<|AUDIO_OUT|>" * (columns - 7) + "<|reserved_special_token_6|>" * 7

    text = re.sub(re.escape("<|AUDIO_OUT|>"), expand, rendered)
    return list(raw.encode(text, add_special_tokens=False).ids)


OUT = "<|AUDIO_OUT|>"
IN = "<|AUDIO|>"
SCENE = "A loud street."
DIALOGUE = "[SPEAKER0] Hi.\n[SPEAKER1] Ho."

ORIGINAL: dict[str, tuple[dict[str, object], list[str | tuple[int, str]]]] = {
    "plain": (
        {"text": "Hello there."},
        [BEGIN + SYSTEM, INSTRUCTION, EOT, USER, "Hello there.", EOT, *SUFFIX],
    ),
    "scene": (
        {"text": "Hello there.", "scene": SCENE},
        [
            BEGIN + SYSTEM,
            f"{INSTRUCTION}\n\n<|scene_desc_start|>\n{SCENE}\n<|scene_desc_end|>",
            EOT,
            USER,
            "Hello there.",
            EOT,
            *SUFFIX,
        ],
    ),
    "clone by turns": (
        {"text": "Hello there.", "speakers": [REF_A]},
        [
            BEGIN + USER,
            "Who is it?",
            EOT,
            ASSISTANT,
            "<|audio_out_bos|>",
            (5, OUT),
            "<|audio_eos|>",
            EOT,
            USER,
            "Hello there.",
            EOT,
            *SUFFIX,
        ],
    ),
    "two speakers by turns, scene": (
        {"text": DIALOGUE, "speakers": [REF_A, REF_B], "scene": SCENE},
        [
            BEGIN + SYSTEM,
            f"{INSTRUCTION}\n\n<|scene_desc_start|>\n{SCENE}\n<|scene_desc_end|>",
            EOT,
            USER,
            "[SPEAKER0] Who is it?",
            EOT,
            ASSISTANT,
            "<|audio_out_bos|>",
            (5, OUT),
            "<|audio_eos|>",
            EOT,
            USER,
            "[SPEAKER1] It is me.",
            EOT,
            ASSISTANT,
            "<|audio_out_bos|>",
            (11, OUT),
            "<|audio_eos|>",
            EOT,
            USER,
            DIALOGUE,
            EOT,
            *SUFFIX,
        ],
    ),
    "references in the system message": (
        {"text": DIALOGUE, "speakers": [REF_A, REF_B], "placement": "system"},
        [
            BEGIN + SYSTEM,
            f"{INSTRUCTION}\n\n<|scene_desc_start|>\nSPEAKER0: ",
            "<|audio_bos|>",
            (5, IN),
            "<|audio_eos|>",
            "\nSPEAKER1: ",
            "<|audio_bos|>",
            (11, IN),
            "<|audio_eos|>",
            "\n<|scene_desc_end|>",
            EOT,
            USER,
            DIALOGUE,
            EOT,
            *SUFFIX,
        ],
    ),
    "a described speaker implies the system message": (
        {"text": DIALOGUE, "speakers": [Profile("old"), REF_B], "scene": SCENE},
        [
            BEGIN + SYSTEM,
            f"{INSTRUCTION}\n\n<|scene_desc_start|>\n{SCENE}\n\nSPEAKER0: old\nSPEAKER1: ",
            "<|audio_bos|>",
            (11, IN),
            "<|audio_eos|>",
            "\n<|scene_desc_end|>",
            EOT,
            USER,
            DIALOGUE,
            EOT,
            *SUFFIX,
        ],
    ),
    "several speakers without references": (
        {"text": DIALOGUE, "scene": SCENE},
        [
            BEGIN + SYSTEM,
            f"{MULTISPEAKER}\n\n<|scene_desc_start|>\n{SCENE}\n\nSPEAKER0: feminine\n"
            "SPEAKER1: masculine\n<|scene_desc_end|>",
            EOT,
            USER,
            DIALOGUE,
            EOT,
            *SUFFIX,
        ],
    ),
}

CLIP = "<|audio_out_bos|><|AUDIO_OUT|><|audio_eos|>"
END = f"{ASSISTANT}<|audio_out_bos|>"
PLAIN_SYSTEM = f"{BEGIN}{SYSTEM}{INSTRUCTION}{EOT}"
SCENE_SYSTEM = f"{BEGIN}{SYSTEM}{INSTRUCTION}\n\n<|scene_desc_start|>\n"
SCENE_CLOSE = f"\n<|scene_desc_end|>{EOT}"

TRANSFORMERS: dict[str, tuple[dict[str, object], str, list[int]]] = {
    "plain": (
        {"text": "Hello there."},
        f"{PLAIN_SYSTEM}{USER}Hello there.{EOT}{END}",
        [],
    ),
    "scene": (
        {"text": "Hello there.", "scene": SCENE},
        f"{SCENE_SYSTEM}{SCENE}{SCENE_CLOSE}{USER}Hello there.{EOT}{END}",
        [],
    ),
    "clone by turns": (
        {"text": "Hello there.", "speakers": [REF_A]},
        f"{PLAIN_SYSTEM}{USER}Who is it?{EOT}{ASSISTANT}{CLIP}{EOT}{USER}Hello there.{EOT}{END}",
        [5],
    ),
    "two speakers by turns": (
        {"text": DIALOGUE, "speakers": [REF_A, REF_B]},
        f"{PLAIN_SYSTEM}{USER}[SPEAKER0] Who is it?{EOT}{ASSISTANT}{CLIP}{EOT}"
        f"{USER}[SPEAKER1] It is me.{EOT}{ASSISTANT}{CLIP}{EOT}{USER}{DIALOGUE}{EOT}{END}",
        [5, 11],
    ),
    "references in the scene": (
        {"text": DIALOGUE, "speakers": [REF_A, REF_B], "placement": "system", "scene": SCENE},
        f"{SCENE_SYSTEM}{SCENE}\n\nSPEAKER0: {CLIP}\nSPEAKER1: {CLIP}{SCENE_CLOSE}"
        f"{USER}{DIALOGUE}{EOT}{END}",
        [5, 11],
    ),
    "references without a scene get the default one": (
        {"text": "Hi.", "speakers": [REF_A], "placement": "system"},
        f"{SCENE_SYSTEM}Audio is recorded from a quiet room.\n\nSPEAKER0: {CLIP}{SCENE_CLOSE}"
        f"{USER}Hi.{EOT}{END}",
        [5],
    ),
    "described and recorded speakers": (
        {"text": "Hi.", "speakers": [Profile("old"), REF_B, Profile("shy")], "scene": SCENE},
        f"{SCENE_SYSTEM}{SCENE}\n\nSPEAKER0: old\nSPEAKER1: {CLIP}\nSPEAKER2: shy{SCENE_CLOSE}"
        f"{USER}Hi.{EOT}{END}",
        [11],
    ),
    "several speakers without references": (
        {"text": DIALOGUE},
        f"{BEGIN}{SYSTEM}{MULTISPEAKER}\n\n<|scene_desc_start|>\nSPEAKER0: feminine\n"
        f"SPEAKER1: masculine{SCENE_CLOSE}{USER}{DIALOGUE}{EOT}{END}",
        [],
    ),
}


@pytest.mark.parametrize("case", ORIGINAL)
def test_original_layout(case: str, tokenizer: TextTokenizer, raw: Tokenizer) -> None:
    request, pieces = ORIGINAL[case]
    segments = build_prompt(tokenizer=tokenizer, **request)  # type: ignore[arg-type]
    assert expanded_ids(segments, tokenizer) == original_ids(raw, pieces)


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_transformers_layout(case: str, tokenizer: TextTokenizer, raw: Tokenizer) -> None:
    request, rendered, frames = TRANSFORMERS[case]
    segments = build_prompt(
        tokenizer=tokenizer,
        convention="transformers",
        **request,  # type: ignore[arg-type]
    )
    assert expanded_ids(segments, tokenizer) == processor_ids(raw, rendered, frames)


def test_the_shortest_prompt_is_the_specified_ids(tokenizer: TextTokenizer) -> None:
    final_stop = byte_ids()["."]
    hi = [byte_ids()["H"], byte_ids()["i"], final_stop]
    system = [32215, 7855, 2768, 7754, final_stop]
    expected = [128000, 128006, 9125, 128007, 271, *system, 128009]
    expected += [128006, 882, 128007, 271, *hi, 128009]
    expected += [128006, 78191, 128007, 271, 128013]
    for convention in ("original", "transformers"):
        segments = build_prompt("Hi.", tokenizer, convention=convention)
        assert expanded_ids(segments, tokenizer) == expected


def test_pieces_are_tokenised_alone_only_in_the_original_convention(
    tokenizer: TextTokenizer,
) -> None:
    # ".\n\n" is one Llama-3 token (382): inside one text it must appear, across pieces it must not.
    joined = build_prompt("Hi.", tokenizer, scene="Rain.")
    assert 382 in expanded_ids(joined, tokenizer)
    messages = [Message("system", ("Rain.", "\n\nWind.")), Message("user", ("Hi.",))]
    assert 382 not in expanded_ids(encode_messages(messages, tokenizer), tokenizer)


@pytest.mark.parametrize("convention", ["original", "transformers"])
def test_clips_keep_their_codes_and_order(tokenizer: TextTokenizer, convention: str) -> None:
    segments = build_prompt(
        DIALOGUE,
        tokenizer,
        speakers=[REF_A, REF_B],
        convention=convention,  # type: ignore[arg-type]
    )
    clips = [segment for segment in segments if isinstance(segment, AudioSegment)]
    assert [clip.num_columns for clip in clips] == [5 + 9, 11 + 9]
    np.testing.assert_array_equal(clips[0].codes, A)
    np.testing.assert_array_equal(clips[1].codes, B)
    assert num_positions(segments) == len(expanded_ids(segments, tokenizer))


def test_the_prompt_ends_with_audio_out_bos_and_begins_once(tokenizer: TextTokenizer) -> None:
    for request, _ in ORIGINAL.values():
        ids = expanded_ids(build_prompt(tokenizer=tokenizer, **request), tokenizer)  # type: ignore[arg-type]
        assert ids[-1] == 128013
        assert ids[0] == 128000
        assert ids.count(128000) == 1


def test_recipient_and_end_of_message(tokenizer: TextTokenizer, raw: Tokenizer) -> None:
    messages = [
        Message("user", ("Hi.",)),
        Message("assistant", ("One.",), recipient="all"),
        Message("assistant", (AudioClip(A),)),
    ]
    pieces: list[str | tuple[int, str]] = [BEGIN + USER, "Hi.", EOT]
    pieces += [ASSISTANT, "all<|recipient|>", "One.", "<|eom_id|>"]
    pieces += [ASSISTANT, "<|audio_out_bos|>", (5, OUT), "<|audio_eos|>", EOT, *SUFFIX]
    segments = encode_messages(messages, tokenizer)
    assert expanded_ids(segments, tokenizer) == original_ids(raw, pieces)


@pytest.mark.parametrize(
    ("messages", "culprit"),
    [
        ([], "system message first"),
        ([Message("user", ("Hi.",))], "system message first, got user"),
        ([Message("system", ("a", "b"))], r"\[system message\] expected one text"),
        ([Message("system", ("a",)), Message("user", (AudioClip(A),))], "got audio"),
        ([Message("system", ("a",)), Message("assistant", ("b",))], "one audio clip"),
        ([Message("system", ("a",)), Message("user", ("b",)), Message("scene", ("c",))], "'scene'"),
    ],
)
def test_what_the_template_would_drop_is_an_error(
    messages: list[Message], culprit: str, tokenizer: TextTokenizer
) -> None:
    with pytest.raises(InvalidRequestError, match=culprit):
        encode_messages(messages, tokenizer, convention="transformers")


def test_user_audio_is_audio_input_in_the_original(tokenizer: TextTokenizer) -> None:
    segments = encode_messages([Message("user", ("Say it: ", AudioClip(A)))], tokenizer)
    ids = expanded_ids(segments, tokenizer)
    assert ids.count(128015) == 5 + 2
    assert ids[ids.index(128015) - 1] == 128011


def test_a_missing_special_token_is_named(tmp_path: Path) -> None:
    path = write_llama_tokenizer(tmp_path / "tokenizer.json", without=("<|audio_out_bos|>",))
    with pytest.raises(CheckpointError, match=r"audio_out_bos") as caught:
        TextTokenizer.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"version": "1.0", "model": 3}'])
def test_a_broken_tokenizer_file_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        TextTokenizer.load(tmp_path)


def test_an_absent_tokenizer_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json\] expected a tokenizer file"):
        TextTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("", r"\[text\] expected at least one word, got an empty string"),
        ("  \n\t ", r"\[text\] expected at least one word, got only white space"),
        ("... !?", r"\[text\] expected at least one letter or digit, got '\.\.\. !\?'"),
        ("[SPEAKER0] -", r"\[text\] expected at least one letter or digit"),
        ("x" * 5001, r"\[text\] expected at most 5000 characters, got 5001"),
        ("Hi <|eot_id|> there", r"\[text\] .*control tokens.*<\|eot_id\|>"),
        # Normalisation makes ASCII brackets of these.
        ("Hi 《|eot_id|》 there", r"\[text\] .*control tokens.*<\|eot_id\|>"),
        ("bad \ud800", r"\[text\] expected valid Unicode"),
    ],
)
def test_text_limits(text: str, culprit: str, tokenizer: TextTokenizer) -> None:
    with pytest.raises(InvalidRequestError, match=culprit):
        build_prompt(text, tokenizer)


def test_limits_name_the_other_fields(tokenizer: TextTokenizer) -> None:
    with pytest.raises(InvalidRequestError, match=r"\[scene\]"):
        build_prompt("Hi.", tokenizer, scene=" ")
    with pytest.raises(InvalidRequestError, match=r"\[transcript of speaker 1\]"):
        build_prompt("Hi.", tokenizer, speakers=[REF_A, Reference(A, "")])
    with pytest.raises(InvalidRequestError, match=r"\[description of speaker 0\]"):
        build_prompt("Hi.", tokenizer, speakers=[Profile("<|eot_id|>")])
    with pytest.raises(InvalidRequestError, match=r"\[convention\].*'llama'"):
        build_prompt("Hi.", tokenizer, convention="llama")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match=r"\[placement\].*'scene'"):
        speech_messages("Hi.", speakers=[REF_A], placement="scene")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match=r"\[audio codes\].*\[8, 0\]"):
        AudioClip(np.zeros((8, 0), np.int32))


def test_the_text_at_the_limit_is_accepted(tokenizer: TextTokenizer) -> None:
    assert num_positions(build_prompt("x" * 5000, tokenizer)) > 5000


def test_sound_events_become_special_tokens(tokenizer: TextTokenizer) -> None:
    ids = expanded_ids(build_prompt("Ha [laugh] ha.", tokenizer), tokenizer)
    assert ids.count(128022) == 1
    assert ids.count(128023) == 1
