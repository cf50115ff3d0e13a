"""The voices of a user, and those of the package."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from higgs_rt.checkpoint.files import DEMO_DIRECTORY
from higgs_rt.errors import VoiceError
from higgs_rt.voices.encode import RecordingSource, VoiceEncoder
from higgs_rt.voices.voice import (
    SUFFIX,
    Voice,
    check_name,
    read_voice,
    remove_leftovers,
    sync_folder,
    write_voice,
)

PACKAGED_DIRECTORY = DEMO_DIRECTORY / "voices"
_LEFTOVER_SECONDS = 3600.0  # no voice takes that long to write
ENVIRONMENT_VARIABLE = "HIGGS_RT_VOICES"


def default_directory() -> Path:
    """`$HIGGS_RT_VOICES`, or `higgs_rt/voices` in the platform's folder for user data."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "higgs_rt" / "voices"


class VoiceStore:
    """Voice files of one directory, with those of the package behind them.

    A user's voice hides a packaged one of the same name. With a `codec_dir`, voices of another
    codec are refused and new ones can be encoded.
    """

    def __init__(
        self,
        directory: str | Path | None = None,
        *,
        codec_dir: str | Path | None = None,
        packaged: str | Path | None = PACKAGED_DIRECTORY,
    ) -> None:
        """`directory` None: `default_directory()`; it is created by the first `add`."""
        self.directory = default_directory() if directory is None else Path(directory).expanduser()
        self._packaged = None if packaged is None else Path(packaged)
        self._encoder = None if codec_dir is None else VoiceEncoder(codec_dir)

    @property
    def encoder(self) -> VoiceEncoder:
        """The encoder of this store's codec; VoiceError when the store has no codec."""
        if self._encoder is None:
            raise VoiceError("[voices] expected a codec to encode with, got a store without one")
        return self._encoder

    def names(self) -> list[str]:
        """All voices by name, sorted."""
        return sorted({path.name.removesuffix(SUFFIX) for path in self._paths()})

    def __contains__(self, name: object) -> bool:
        """Whether a voice has this name."""
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        """Names, sorted."""
        return iter(self.names())

    def path(self, name: str) -> Path:
        """The file of a voice; VoiceError that lists what there is when the name is unknown."""
        check_name(name)
        for directory in self._directories():
            path = directory / f"{name}{SUFFIX}"
            if path.is_file():
                return path
        known = ", ".join(self.names()) or "none"
        raise VoiceError(f"[voice {name}] expected one of the stored voices ({known}), got {name}")

    def is_packaged(self, name: str) -> bool:
        """Whether the voice of this name comes with the package."""
        return self.path(name).parent != self.directory

    def show(self, name: str) -> Voice:
        """Read a voice, of whichever codec."""
        return read_voice(self.path(name))

    def load(self, name: str) -> Voice:
        """Read a voice for use; VoiceError when this store's codec did not encode it."""
        voice = self.show(name)
        if self._encoder is not None and not self.usable(voice):
            raise VoiceError(
                f"[voice {name}] expected codes of codec {self._encoder.fingerprint[:12]} "
                f"({self._encoder.codec_dir}), got codes of codec {voice.codec[:12]}: "
                "add the recording again with this codec"
            )
        return voice

    def usable(self, voice: Voice) -> bool:
        """Whether this store's codec made the voice; True for a store without codec."""
        return self._encoder is None or voice.codec == self._encoder.fingerprint

    def add(
        self,
        name: str,
        recording: RecordingSource,
        transcript: str | None,
        *,
        sample_rate: int | None = None,
        force: bool = False,
    ) -> Voice:
        """Encode a recording and store it. An existing voice is replaced only with `force`."""
        check_name(name)
        path = self.directory / f"{name}{SUFFIX}"
        if path.exists() and not force:
            raise VoiceError(
                f"[voice {name}] expected a new name, got one that exists: {path} "
                "(force replaces it)"
            )
        voice = self.encoder.encode(name, recording, transcript, sample_rate=sample_rate)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.directory, _LEFTOVER_SECONDS)
        except OSError as error:
            raise VoiceError(f"[{self.directory}] expected a folder, got: {error}") from None
        write_voice(path, voice)
        return voice

    def remove(self, name: str) -> Path:
        """Delete a user's voice and return its former path; packaged voices cannot be removed."""
        path = self.path(name)
        if self.is_packaged(name):
            raise VoiceError(f"[voice {name}] expected a voice of {self.directory}, got a packaged")
        try:
            path.unlink()
            sync_folder(path.parent)
        except OSError as error:
            raise VoiceError(f"[{path}] expected a removable file, got: {error}") from None
        return path

    def _directories(self) -> list[Path]:
        return [self.directory, *([self._packaged] if self._packaged is not None else [])]

    def _paths(self) -> Iterator[Path]:
        for directory in self._directories():
            if directory.is_dir():
                yield from directory.glob(f"[!.]*{SUFFIX}")
