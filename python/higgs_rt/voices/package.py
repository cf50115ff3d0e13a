"""Makes the packaged voices: `python -m higgs_rt.voices.package [DEMO_DIRECTORY]`.

Each `references/NAME.{flac,wav,ogg}` with its transcript `references/NAME.txt` becomes
`voices/NAME.voice.safetensors`, encoded by the codec in `codec/`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from higgs_rt.checkpoint.files import DEMO_DIRECTORY
from higgs_rt.errors import HiggsError, VoiceError
from higgs_rt.voices.store import VoiceStore
from higgs_rt.voices.voice import Voice

_RECORDINGS = (".flac", ".wav", ".ogg")


def package_voices(demo: Path) -> list[Voice]:
    """Encode all references of a demo directory; voices that exist are replaced."""
    references = demo / "references"
    recordings = sorted(path for path in references.glob("*") if path.suffix in _RECORDINGS)
    if not recordings:
        raise VoiceError(f"[{references}] expected recordings {', '.join(_RECORDINGS)}, got none")
    store = VoiceStore(demo / "voices", codec_dir=demo / "codec", packaged=None)
    return [
        store.add(path.stem, path, _transcript(path.with_suffix(".txt")), force=True)
        for path in recordings
    ]


def _transcript(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise VoiceError(f"[{path}] expected a transcript, got: {error}") from None


def main(arguments: list[str]) -> int:
    """Command line: at most one argument, the demo directory."""
    if len(arguments) > 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        voices = package_voices(Path(arguments[0]) if arguments else DEMO_DIRECTORY)
    except HiggsError as error:
        print(error, file=sys.stderr)
        return 1
    for voice in voices:
        print(f"{voice.name}: {voice.codes.shape[1]} frames, {voice.seconds:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
