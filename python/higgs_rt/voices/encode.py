"""Recording + transcript -> voice. Needs torch, imported when first used."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from higgs_rt.audio import CODEC_SAMPLE_RATE, Audio, prepare_reference
from higgs_rt.errors import VoiceError
from higgs_rt.prompt import check_text
from higgs_rt.voices.fingerprint import codec_fingerprint
from higgs_rt.voices.voice import Voice

if TYPE_CHECKING:
    from higgs_rt.codec import CodecEncoder

RecordingSource = str | Path | Audio | NDArray[np.floating[Any]]


class VoiceEncoder:
    """Makes voices with the codec in one directory; the codec is loaded on first use."""

    def __init__(self, codec_dir: str | Path) -> None:
        self.codec_dir = Path(codec_dir)
        self._encoder: CodecEncoder | None = None
        self._fingerprint: str | None = None

    @property
    def fingerprint(self) -> str:
        """Identity of the codec (see `codec_fingerprint`)."""
        if self._fingerprint is None:
            self._fingerprint = codec_fingerprint(self.codec_dir)
        return self._fingerprint

    def encode(
        self,
        name: str,
        recording: RecordingSource,
        transcript: str | None,
        *,
        sample_rate: int | None = None,
    ) -> Voice:
        """Encode a file, an `Audio`, or an array with its `sample_rate` in Hz.

        Several channels are mixed to mono and any rate of 8..192 kHz is resampled. Raises
        AudioError for a recording that cannot serve, VoiceError without a transcript or torch.
        """
        source = Path(recording).name if isinstance(recording, str | Path) else "samples"
        if transcript is None or not transcript.strip():
            raise VoiceError(
                f"[voice {name}] expected the transcript of {source} (the words that are spoken "
                "in it), got none"
            )
        check_text(transcript, field=f"transcript of voice {name}")
        samples = prepare_reference(recording, sample_rate=sample_rate)
        codes = self._load().encode(samples)
        return Voice(
            name=name,
            codes=codes,
            transcript=transcript.strip(),
            codec=self.fingerprint,
            sample_rate=CODEC_SAMPLE_RATE,
            samples_per_frame=len(samples) // codes.shape[1],
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            source=source,
        )

    def _load(self) -> CodecEncoder:
        if self._encoder is None:
            try:
                from higgs_rt.codec import CodecEncoder
            except ImportError as error:
                raise VoiceError(
                    "[voices] expected torch, which encodes recordings "
                    f"(pip install 'higgs-rt[voices]'), got: {error}"
                ) from None
            self._encoder = CodecEncoder.load(self.codec_dir)
        return self._encoder
