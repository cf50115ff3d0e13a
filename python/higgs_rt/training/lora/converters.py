"""Samples from the formats that people have. Every fault names the file and line.

All of them give plain text-to-speech samples: a system message with the instruction (and the scene,
if one is given), the transcript as the user's message, the recording as the answer. With
`reference` a speaker's recording stands before it, as in a cloning request: another clip of the
same speaker, drawn from a fixed seed. Where the instruction and the scene stand follows the
`convention`, as in the runtime's own prompts (`higgs_rt.prompt.layouts`).
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from higgs_rt.prompt.layouts import INSTRUCTION, Convention, check_convention
from higgs_rt.prompt.tokenizer import SCENE_END, SCENE_START
from higgs_rt.training.lora.samples import SampleError, read_rows

AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")


@dataclass(frozen=True)
class Utterance:
    """A transcript and its recording; `place` is where it was found."""

    place: str
    audio: Path
    text: str
    speaker: str = ""


Row = tuple[str, Any]


def rows_of(
    kind: str,
    source: Path,
    *,
    scene: str | None = None,
    reference: bool = False,
    convention: Convention = "original",
) -> Iterator[Row]:
    """(place, ChatML row) of a source of the named kind; SampleError for an unknown one.

    Kinds: chatml (JSON, JSONL), folder (recordings with .txt of the same name; a folder inside is a
    speaker), ljspeech (metadata.csv, wavs/), common-voice (a .tsv beside clips/), ms-swift (JSON or
    JSONL with messages and audios). scene, reference and convention are for the other three: the
    messages of chatml and ms-swift stay as they are.
    """
    check_convention(convention)
    if kind == "chatml":
        yield from _with_paths(source)
        return
    if kind == "ms-swift":
        yield from _ms_swift(source)
        return
    readers: dict[str, Callable[[Path], Iterator[Utterance]]] = {
        "folder": _folder,
        "ljspeech": _ljspeech,
        "common-voice": _common_voice,
    }
    if kind not in readers:
        known = ", ".join(["chatml", "ms-swift", *readers])
        raise SampleError(f"[format] expected one of {known}, got {kind!r}")
    yield from _samples(list(readers[kind](source)), scene, reference, convention)


def _system(scene: str | None, convention: Convention) -> list[dict[str, Any]]:
    """What stands first: one message, or a scene message of its own behind the instruction."""
    if convention == "original":
        block = f"\n\n{SCENE_START}\n{scene}\n{SCENE_END}" if scene else ""
        return [{"role": "system", "content": INSTRUCTION + block}]
    messages = [{"role": "system", "content": INSTRUCTION}]
    return [*messages, {"role": "scene", "content": scene}] if scene else messages


def _samples(
    utterances: list[Utterance], scene: str | None, reference: bool, convention: Convention
) -> Iterator[Row]:
    by_speaker: dict[str, list[Utterance]] = {}
    for one in utterances:
        by_speaker.setdefault(one.speaker, []).append(one)
    chooser = random.Random(0)
    for one in utterances:
        others = [other for other in by_speaker[one.speaker] if other is not one]
        referred = _pair(chooser.choice(others)) if reference and others else []
        # The original has no system message before a reference, unless there is a scene.
        bare = referred and not scene and convention == "original"
        messages = [*([] if bare else _system(scene, convention)), *referred]
        start = len(messages)
        messages += _pair(one)
        row: dict[str, Any] = {"messages": messages, "start_index": start}
        if one.speaker:
            row["speaker"] = one.speaker
        yield one.place, row


def _pair(one: Utterance) -> list[dict[str, Any]]:
    audio = {"type": "audio", "audio_url": str(one.audio)}
    return [
        {"role": "user", "content": one.text},
        {"role": "assistant", "content": audio},
    ]


def _folder(source: Path) -> Iterator[Utterance]:
    if not source.is_dir():
        raise SampleError(f"[{source}] expected a folder of recordings, got none")
    found = sorted(p for p in source.rglob("*") if p.suffix.lower() in AUDIO_EXTENSIONS)
    if not found:
        raise SampleError(
            f"[{source}] expected recordings ({', '.join(AUDIO_EXTENSIONS)}), got none"
        )
    for audio in found:
        words = audio.with_suffix(".txt")
        if not words.is_file():
            raise SampleError(f"[{audio}] expected its transcript {words.name} beside it, got none")
        speaker = "" if audio.parent == source else str(audio.parent.relative_to(source))
        yield Utterance(str(words), audio, " ".join(_text(words).split()), speaker)


def _ljspeech(source: Path) -> Iterator[Utterance]:
    """Lines `id|transcript|normalised transcript`; the last column that is not empty is used."""
    table = source / "metadata.csv" if source.is_dir() else source
    for number, line in enumerate(_text(table).splitlines(), 1):
        if not line.strip():
            continue
        cells = line.split("|")
        if len(cells) not in (2, 3):
            raise SampleError(f"[{table}:{number}] expected id|text|text, got {len(cells)} columns")
        text = cells[-1].strip() or cells[1].strip()
        audio = table.parent / "wavs" / f"{cells[0].strip()}.wav"
        yield Utterance(f"{table}:{number}", audio, text)


def _common_voice(source: Path) -> Iterator[Utterance]:
    """A .tsv with the columns path, sentence and client_id; recordings lie in clips/."""
    rows = csv.DictReader(_text(source).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = {"path", "sentence", "client_id"} - set(rows.fieldnames or ())
    if missing:
        raise SampleError(
            f"[{source}:1] expected columns path, sentence and client_id, got {rows.fieldnames}"
        )
    for number, row in enumerate(rows, 2):
        if row["path"] is None or row["sentence"] is None:
            raise SampleError(f"[{source}:{number}] expected a path and a sentence, got {row}")
        audio = source.parent / "clips" / row["path"]
        speaker = (row["client_id"] or "")[:16]
        yield Utterance(f"{source}:{number}", audio, row["sentence"].strip(), speaker)


def _with_paths(source: Path) -> Iterator[Row]:
    """ChatML with recordings relative to the file that names them."""
    for place, row in read_rows(source):
        for part in _audio_parts(row):
            url = part.get("audio_url")
            if isinstance(url, str) and url:
                part["audio_url"] = str(source.parent / url)
        yield place, row


def _audio_parts(row: Any) -> Iterator[dict[str, Any]]:
    """The audio parts of a row that may be malformed: whatever is not one is left to the parser."""
    messages = row.get("messages") if isinstance(row, dict) else None
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, dict) and part.get("type") == "audio":
                yield part


def _ms_swift(source: Path) -> Iterator[Row]:
    """Messages whose texts hold <audio> marks, and `audios`: their files in order."""
    for place, row in read_rows(source):
        if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
            raise SampleError(f"[{place}: messages] expected a list of messages, got none")
        unknown = sorted(row.keys() - {"messages", "audios"})
        if unknown:
            raise SampleError(f"[{place}] expected messages and audios, got {unknown}")
        audios = row.get("audios", [])
        if not isinstance(audios, list) or not all(isinstance(one, str) for one in audios):
            raise SampleError(f"[{place}: audios] expected a list of files, got {audios!r}")
        files = iter(audios)
        messages, used = [], 0
        for index, message in enumerate(row["messages"]):
            content = message.get("content") if isinstance(message, dict) else None
            if not isinstance(content, str):
                raise SampleError(
                    f"[{place}: messages[{index}].content] expected a text, got {content!r}"
                )
            parts: list[dict[str, str]] = []
            for number, text in enumerate(content.split("<audio>")):
                if number:
                    used += 1
                    file = next(files, "")
                    parts.append({"type": "audio", "audio_url": str(source.parent / file)})
                if text.strip() or (not parts and "<audio>" not in content):
                    parts.append({"type": "text", "text": text})
            messages.append({**message, "content": parts})
        if used != len(audios):
            raise SampleError(
                f"[{place}: audios] expected {used} files for the <audio> marks, got {len(audios)}"
            )
        yield place, {"messages": messages}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SampleError(f"[{path}] expected a UTF-8 file, got: {error}") from None
