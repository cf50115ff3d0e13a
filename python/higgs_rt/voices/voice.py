"""A voice, and the file that keeps it (docs/voices.md)."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from higgs_rt.errors import VoiceError
from higgs_rt.prompt import Reference

SUFFIX = ".voice.safetensors"
LEFTOVER = ".writing"  # how a file's name ends until it is complete
FORMAT = "higgs_rt.voice"
FORMAT_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FIELDS = ("transcript", "codec", "sample_rate", "samples_per_frame", "created", "source")


@dataclass(frozen=True, eq=False)
class Voice:
    """A reference recording, encoded once.

    codes: int32 [num_codebooks, num_frames], without BOS, EOS and delay. codec: fingerprint of the
    codec that made them. created: ISO 8601, UTC. source: name of the recording's file.
    """

    name: str
    codes: NDArray[np.int32]
    transcript: str
    codec: str
    sample_rate: int
    samples_per_frame: int
    created: str
    source: str

    @property
    def seconds(self) -> float:
        """Duration of the recording in whole frames."""
        return int(self.codes.shape[1]) * self.samples_per_frame / self.sample_rate

    def reference(self) -> Reference:
        """What a prompt needs of it."""
        return Reference(self.codes, self.transcript)


def check_name(name: str) -> None:
    """Raise VoiceError unless `name` can be a voice's (and a file's) name."""
    if not _NAME.fullmatch(name):
        raise VoiceError(
            f"[voice name] expected 1..64 of A-Z a-z 0-9 . _ - beginning with a letter or digit, "
            f"got {name!r}"
        )


def write_voice(path: Path, voice: Voice) -> None:
    """Write a voice file, atomically: either the whole file is there or nothing changed.

    When this returns, the file is on the disk: it survives the end of the process and of the power.
    """
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "name": voice.name,
        "transcript": voice.transcript,
        "codec": voice.codec,
        "sample_rate": str(voice.sample_rate),
        "samples_per_frame": str(voice.samples_per_frame),
        "seconds": f"{voice.seconds:.2f}",
        "created": voice.created,
        "source": voice.source,
    }
    data = save({"codes": np.ascontiguousarray(voice.codes, np.int32)}, metadata)
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(LEFTOVER, f".{voice.name}.", path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise VoiceError(f"[{path}] expected a writable place, got: {error}") from None


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path, age: float) -> None:
    """Delete what writers left that were killed more than `age` seconds ago."""
    oldest = time.time() - age
    for path in folder.glob(f".*{LEFTOVER}"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()


def read_voice(path: Path) -> Voice:
    """Read a voice file; its name is the file's. VoiceError names the file and the fault."""
    name = path.name.removesuffix(SUFFIX)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            _check_format(path, metadata)
            if list(file.keys()) != ["codes"]:
                raise VoiceError(f"[{path}] expected one tensor, codes, got {list(file.keys())}")
            codes = file.get_tensor("codes")
    except (SafetensorError, OSError) as error:
        raise VoiceError(f"[{path}] expected a voice file, got: {error}") from None
    _check_codes(path, codes)
    missing = [field for field in _FIELDS if not metadata.get(field)]
    if missing:
        raise VoiceError(f"[{path}] expected the metadata field {missing[0]}, got none")
    return Voice(
        name=name,
        codes=codes.astype(np.int32),
        transcript=metadata["transcript"],
        codec=metadata["codec"],
        sample_rate=_positive(path, metadata, "sample_rate"),
        samples_per_frame=_positive(path, metadata, "samples_per_frame"),
        created=metadata["created"],
        source=metadata["source"],
    )


def _check_format(path: Path, metadata: dict[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        got = metadata.get("format", "none")
        raise VoiceError(f"[{path}] expected a voice file (format {FORMAT}), got format {got}")
    if metadata.get("format_version") != str(FORMAT_VERSION):
        got = metadata.get("format_version", "none")
        raise VoiceError(f"[{path}] expected format version {FORMAT_VERSION}, got {got}")


def _check_codes(path: Path, codes: NDArray[np.generic]) -> None:
    if codes.dtype not in (np.int32, np.int16) or codes.ndim != 2 or 0 in codes.shape:
        raise VoiceError(
            f"[{path}] expected codes int32 [num_codebooks, num_frames], "
            f"got {codes.dtype} {list(codes.shape)}"
        )
    if int(codes.min()) < 0:
        raise VoiceError(f"[{path}] expected codes >= 0, got {int(codes.min())}")


def _positive(path: Path, metadata: dict[str, str], field: str) -> int:
    value = metadata[field]
    if not value.isdecimal() or int(value) == 0:
        raise VoiceError(f"[{path}] expected a positive integer {field}, got {value!r}")
    return int(value)
