"""Speech for a list of lines, made by worker processes into chunk files.

A chunk file (npz) holds ``lines`` (indices into the corpus), ``frames`` (length of each clip in
codec frames of 40 ms), ``samples`` (int16, 24 kHz, all clips in a row, each a whole number of
frames), ``words`` (words per clip) and ``spans`` (uint16 [words, 2], start and end of each word in
10 ms from the clip's start, 65535 if unknown).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flite_speech import SAMPLE_RATE, Flite, Speech

FRAME = 960
MAX_FRAMES = 127
LEAD_SECONDS = 0.08
TAIL_SECONDS = 0.12
LEVEL = 0.08


def clip_of(speech: Speech) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint16]]:
    """Trims to the words, sets the level, resamples to 24 kHz, pads to whole frames."""
    from scipy.signal import resample_poly

    spans = speech.word_spans
    begin = max(0.0, float(np.nanmin(spans[:, 0])) - LEAD_SECONDS)
    end = float(np.nanmax(spans[:, 1])) + TAIL_SECONDS
    part = speech.samples[int(begin * SAMPLE_RATE) : int(end * SAMPLE_RATE)].astype(np.float32)
    wave = resample_poly(part, 3, 2) / 32768.0
    wave *= LEVEL / (float(np.sqrt(np.mean(wave**2))) + 1e-6)
    wave = np.pad(np.clip(wave, -0.99, 0.99), (0, -len(wave) % FRAME))
    ticks = np.where(np.isnan(spans), 65535, np.clip((spans - begin) * 100, 0, 60_000))
    return (wave * 32767.0).astype(np.int16), ticks.astype(np.uint16)


def speak_chunk(flite: Flite, lines: list[tuple[str, str]], first: int, out: Path) -> None:
    """Speaks `lines` (voice, text), whose corpus indices start at `first`; longer ones are left
    out.
    """
    index, frames, words, clips, spans = [], [], [], [], []
    for i, (voice, text) in enumerate(lines):
        clip, ticks = clip_of(flite.speak(text, voice))
        if len(clip) // FRAME > MAX_FRAMES:
            continue
        index.append(first + i)
        frames.append(len(clip) // FRAME)
        words.append(len(ticks))
        clips.append(clip)
        spans.append(ticks)
    partial = out.with_suffix(".partial.npz")
    np.savez(
        partial,
        lines=np.array(index, np.int32),
        frames=np.array(frames, np.int16),
        words=np.array(words, np.int16),
        samples=np.concatenate(clips),
        spans=np.concatenate(spans),
    )
    partial.rename(out)


def start_workers(
    lines: Path, out: Path, workers: int, chunk: int = 500, folder: Path | None = None
) -> list[subprocess.Popen[bytes]]:
    """Starts this module once per worker; finished chunks appear in `out` as ``chunk_NNNN.npz``.

    Chunks that are there already are not made again. `folder` holds flite's libraries, if not the
    system.
    """
    out.mkdir(parents=True, exist_ok=True)
    processes = []
    for worker in range(workers):
        command = [sys.executable, __file__, str(lines), str(out), str(worker), str(workers)]
        command += [str(chunk)] + ([str(folder)] if folder else [])
        processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
    return processes


def main(arguments: list[str]) -> None:
    """Arguments: lines file, out folder, worker, workers, chunk size[, flite folder]."""
    os.nice(10)  # the training beside it goes first
    text = Path(arguments[0]).read_text(encoding="utf-8")
    lines = [(v, t) for v, t in (row.split("\t") for row in text.splitlines())]
    out = Path(arguments[1])
    worker, workers, chunk = (int(value) for value in arguments[2:5])
    flite = Flite(Path(arguments[5]) if len(arguments) > 5 else None)
    for number in range(worker, -(-len(lines) // chunk), workers):
        path = out / f"chunk_{number:04d}.npz"
        if not path.exists():
            first = number * chunk
            speak_chunk(flite, lines[first : first + chunk], first, path)


if __name__ == "__main__":
    main(sys.argv[1:])
