"""Encoded recordings on disk, so that the same recording is not encoded twice.

A folder of this user's own (0700) with one file (0600) for each recording: the codes, under a name
that is a hash of the recording's bytes and of the codec. Neither the recording nor its words are
kept. The files not used for longest go when all of them take more than the limit.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from higgs_rt.errors import VoiceError

_log = logging.getLogger(__name__)
_SUFFIX = ".codes.safetensors"
_VERSION = "1"  # of how recordings become codes
DEFAULT_BYTES = 64 << 20


def default_directory() -> Path:
    """`higgs_rt/recordings` in the platform's folder for what may be lost."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "higgs_rt" / "recordings"


def private_directory(directory: str | Path) -> Path:
    """The folder, created where it is missing; VoiceError when others may open it."""
    directory = Path(directory).expanduser()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = directory.stat()
    except OSError as error:
        raise VoiceError(f"[recording cache {directory}] expected a folder, got: {error}") from None
    if sys.platform == "win32":
        return directory
    mode = stat.S_IMODE(state.st_mode)
    if state.st_uid != os.getuid() or mode & 0o077:
        raise VoiceError(
            f"[recording cache {directory}] expected a folder of this user that nobody else can "
            f"open (mode 700), got owner {state.st_uid}, mode {mode:o}"
        )
    return directory


class NoRecordings:
    """Keeps nothing."""

    def get(self, recording: bytes) -> NDArray[np.int32] | None:
        """None."""

    def put(self, recording: bytes, codes: NDArray[np.int32]) -> None:
        """Nothing happens."""


class RecordingCache:
    """Codes of recordings by their bytes, for one codec. For any thread and several processes."""

    def __init__(
        self, directory: str | Path, codec: str, *, max_bytes: int = DEFAULT_BYTES
    ) -> None:
        """`codec`: the fingerprint of the codec. The folder is created.

        Raises VoiceError when it cannot be, or is one that others may write to or read.
        """
        if max_bytes < 1:
            raise VoiceError(f"[recording cache] expected at least 1 byte, got {max_bytes}")
        self.directory = private_directory(directory)
        self._codec = codec
        self._max_bytes = max_bytes

    def get(self, recording: bytes) -> NDArray[np.int32] | None:
        """Codes int32 [num_codebooks, num_frames] of an equal recording, or None."""
        path = self._path(recording)
        try:
            data = path.read_bytes()
            codes = load(data)["codes"]
            if codes.ndim != 2 or codes.dtype != np.int32 or codes.size == 0:
                raise ValueError(f"codes {codes.dtype} {codes.shape}")
        except FileNotFoundError:
            return None
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            _log.warning("[%s] expected codes, got: %s; encoding again", path, error)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used now
        return codes

    def put(self, recording: bytes, codes: NDArray[np.int32]) -> None:
        """Keep the codes of a recording; a full disk is a warning and no more."""
        data = save({"codes": np.ascontiguousarray(codes, np.int32)})
        temporary = ""
        try:
            # mkstemp makes files that only this user can read.
            handle, temporary = tempfile.mkstemp(prefix=".", dir=self.directory)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(temporary).replace(self._path(recording))
            self._trim()
        except OSError as error:
            _log.warning("[%s] expected a writable folder, got: %s", self.directory, error)
            with contextlib.suppress(OSError):
                Path(temporary or self.directory / ".none").unlink()

    def _path(self, recording: bytes) -> Path:
        digest = hashlib.sha256(f"{_VERSION} {self._codec} ".encode())
        digest.update(recording)
        return self.directory / f"{digest.hexdigest()}{_SUFFIX}"

    def _trim(self) -> None:
        found = []
        for entry in os.scandir(self.directory):
            if entry.name.endswith(_SUFFIX):
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    state = entry.stat(follow_symlinks=False)
                    found.append((state.st_mtime_ns, state.st_size, entry.path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._max_bytes:
                return
            Path(path).unlink(missing_ok=True)
            total -= size
