"""Recordings to codes, once: validation, parallel encoding into a cache, and a report.

Rules for bad data: a malformed sample (fields, roles, texts) refuses the whole input, with all its
faults named, because it shows that the file is not what it was taken for. A recording that cannot
serve (missing, unreadable, silent, too short or long, a strange rate) leaves its sample out: named,
counted, and refused after all when more than `max_bad` of the samples are concerned. Recordings
that serve but look wrong (clipped, a transcript that does not fit) are named in the report.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from higgs_rt.audio import (
    CODEC_SAMPLE_RATE,
    FRAME_SAMPLES,
    ReferenceLimits,
    prepare_reference,
    read_audio,
)
from higgs_rt.errors import AudioError, HiggsError
from higgs_rt.training.lora.samples import Sample, SampleError, parse_sample, sample_row

CODES = "codes"
REPORT = "report.json"
MAX_SHOWN = 20
_CLIPPED_PEAK = 0.999
_CLIPPED_SHARE = 1e-3  # of the samples
# Characters a second of ordinary speech; outside, text and recording hardly belong together.
_SLOWEST, _FASTEST = 2.0, 30.0


@dataclass(frozen=True)
class PrepareOptions:
    """What is accepted, in seconds and Hz, and how it is done."""

    min_seconds: float = 0.2
    max_seconds: float = 60.0
    min_sample_rate: int = 8000
    max_sample_rate: int = 192_000
    max_bad: float = 0.05  # share of samples whose recordings cannot serve
    workers: int = 1

    def limits(self) -> ReferenceLimits:
        """For the audio reader."""
        return ReferenceLimits(
            self.min_seconds, self.max_seconds, self.min_sample_rate, self.max_sample_rate
        )


@dataclass
class Clip:
    """What is known of one recording; `fault` says why it cannot serve."""

    path: str
    codes: str = ""
    seconds: float = 0.0
    clipped: bool = False
    fault: str = ""


@dataclass
class Report:
    """Of a prepared folder; lists hold all names."""

    samples: int = 0
    clips: int = 0
    hours: float = 0.0
    seconds_shortest: float = 0.0
    seconds_median: float = 0.0
    seconds_longest: float = 0.0
    speakers: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    clipped: list[str] = field(default_factory=list)
    ill_fitting: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people."""
        speakers = ", ".join(f"{name or '(unnamed)'} {n}" for name, n in self.speakers.items())
        lines = [
            f"{self.samples} samples, {self.clips} recordings, {self.hours:.2f} h, "
            f"{self.seconds_shortest:.1f} to {self.seconds_longest:.1f} s, "
            f"median {self.seconds_median:.1f} s",
            f"speakers: {speakers}",
        ]
        for title, names in (
            ("left out", self.left_out),
            ("clipped, kept", self.clipped),
            ("text and length hardly fit, kept", self.ill_fitting),
        ):
            if names:
                lines.append(f"{title}: {len(names)}")
                lines += [f"  {name}" for name in names[:MAX_SHOWN]]
        return lines


def parse_all(rows: Iterable[tuple[str, Any]]) -> list[Sample]:
    """All samples; SampleError that names every malformed one, up to 20."""
    samples: list[Sample] = []
    faults: list[str] = []
    for place, stored in rows:
        try:
            samples.append(parse_sample(stored, place))
        except SampleError as error:
            faults.append(str(error))
    if faults:
        more = f"; and {len(faults) - MAX_SHOWN} more" if len(faults) > MAX_SHOWN else ""
        raise SampleError("; ".join(faults[:MAX_SHOWN]) + more)
    if not samples:
        raise SampleError("[samples] expected at least one, got none")
    return samples


def prepare(
    samples: Sequence[Sample],
    output: Path,
    codec_dir: Path,
    options: PrepareOptions,
    *,
    progress: bool = True,
) -> Report:
    """Encodes all recordings of `samples` and writes `output` for the trainer; returns the report.

    Codes that are in the cache already, of the same bytes and codec, are not made again.
    HiggsError when more than `max_bad` of the samples have recordings that cannot serve.
    """
    from higgs_rt.training.lora.data import SAMPLES

    (output / CODES).mkdir(parents=True, exist_ok=True)
    wanted = sorted({part.audio_url for one in samples for part in one.audio() if not part.codes})
    clips = {clip.path: clip for clip in _encode(wanted, output, codec_dir, options, progress)}
    report = Report(clips=sum(not clip.fault for clip in clips.values()))
    kept: list[dict[str, Any]] = []
    speakers: Counter[str] = Counter()
    for sample in samples:
        used = [clips[part.audio_url] for part in sample.audio() if not part.codes]
        faults = [clip.fault for clip in used if clip.fault]
        if faults:
            report.left_out.append(f"{sample.place}: {faults[0]}")
            continue
        speakers[sample.speaker] += 1
        report.ill_fitting += _ill_fitting(sample, clips)
        kept.append(sample_row(sample, {clip.path: clip.codes for clip in used}))
    if len(report.left_out) > options.max_bad * len(samples):
        shown = "; ".join(report.left_out[:MAX_SHOWN])
        raise HiggsError(
            f"[prepare] expected at most {options.max_bad:.0%} of the samples (--max-bad) with "
            f"recordings that cannot serve, got {len(report.left_out)} of {len(samples)}: {shown}"
        )
    report.samples, report.speakers = len(kept), dict(speakers.most_common())
    report.clipped = [clip.path for clip in clips.values() if clip.clipped]
    lengths = sorted(clip.seconds for clip in clips.values() if not clip.fault)
    if lengths:
        report.hours = sum(lengths) / 3600
        report.seconds_shortest, report.seconds_longest = lengths[0], lengths[-1]
        report.seconds_median = lengths[len(lengths) // 2]
    partial = output / f".{SAMPLES}.partial"
    with partial.open("w", encoding="utf-8") as file:
        for row in kept:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    partial.replace(output / SAMPLES)
    (output / REPORT).write_text(json.dumps(asdict(report), indent=1), encoding="utf-8")
    return report


def _ill_fitting(sample: Sample, clips: dict[str, Clip]) -> list[str]:
    """Names answers that are spoken at less than 2 or more than 30 characters a second."""
    found = []
    for asked, answer in zip(sample.messages, sample.messages[1:], strict=False):
        audio = [part for part in answer.parts if not isinstance(part, str)]
        if asked.role != "user" or answer.role != "assistant" or len(audio) != 1:
            continue
        clip = clips.get(audio[0].audio_url)
        if clip is None or not clip.seconds:
            continue
        characters = sum(len(part) for part in asked.parts if isinstance(part, str))
        pace = characters / clip.seconds
        if not _SLOWEST <= pace <= _FASTEST:
            found.append(f"{sample.place}: {pace:.1f} characters a second in {clip.path}")
    return found


# --- encoding ------------------------------------------------------------------------------------

_worker: dict[str, Any] = {}


def _encode(
    paths: Sequence[str], output: Path, codec_dir: Path, options: PrepareOptions, progress: bool
) -> list[Clip]:
    from tqdm import tqdm

    from higgs_rt.voices.fingerprint import codec_fingerprint

    setup = (str(codec_dir), codec_fingerprint(codec_dir), str(output), options)
    bar = tqdm(total=len(paths), unit="clip", disable=None if progress else True)
    clips: list[Clip] = []
    with bar:
        if options.workers <= 1 or len(paths) < 2:
            _start_worker(*setup)
            for path in paths:
                clips.append(_encode_one(path))
                bar.update(1)
            return clips
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        with context.Pool(options.workers, _start_worker, setup) as pool:
            for clip in pool.imap(_encode_one, paths, chunksize=4):
                clips.append(clip)
                bar.update(1)
    return clips


def _start_worker(codec_dir: str, fingerprint: str, output: str, options: PrepareOptions) -> None:
    _worker.update(
        codec_dir=codec_dir, fingerprint=fingerprint, output=Path(output), options=options
    )
    _worker.pop("encoder", None)
    if options.workers > 1:
        import torch

        torch.set_num_threads(1)


def _encode_one(path: str) -> Clip:
    """Codes of one recording, from the cache or made now; never raises for a bad recording."""
    options: PrepareOptions = _worker["options"]
    output: Path = _worker["output"]
    clip = Clip(path)
    try:
        audio = read_audio(path, max_seconds=options.max_seconds)
        samples = prepare_reference(audio, limits=options.limits())
    except AudioError as error:
        clip.fault = f"{path}: {error}" if path not in str(error) else str(error)
        return clip
    peak = np.abs(audio.samples) >= _CLIPPED_PEAK
    clip.clipped = bool(peak.mean() > _CLIPPED_SHARE)
    clip.seconds = audio.seconds
    identity = hashlib.sha256(_worker["fingerprint"].encode())
    identity.update(samples.tobytes())
    clip.codes = f"{CODES}/{identity.hexdigest()[:32]}.npy"
    target = output / clip.codes
    if not target.is_file():
        codes = _encoder().encode(samples)
        assert codes.shape[1] == len(samples) // FRAME_SAMPLES, CODEC_SAMPLE_RATE
        partial = target.with_suffix(f".{multiprocessing.current_process().pid}.partial")
        with partial.open("wb") as file:
            np.save(file, codes.astype(np.int16))
        partial.replace(target)  # a reader, and the next run, sees whole files only
    return clip


def _encoder() -> Any:
    if "encoder" not in _worker:
        from higgs_rt.codec import CodecEncoder

        _worker["encoder"] = CodecEncoder.load(_worker["codec_dir"])
    return _worker["encoder"]
