"""Everything that can be configured, with its unit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from higgs_rt.voices.recordings import DEFAULT_BYTES

# Names by which clients of the OpenAI API ask for speech; all of them mean the loaded model.
OPENAI_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-audio-preview", "gpt-audio")


@dataclass(frozen=True)
class ServerSettings:
    """Limits and permissions of a server.

    model_name: the model's id; `model_aliases` mean it too. api_keys: one of them must be sent as
    bearer token; none: everybody may. requests_per_minute: of one key, or address without keys; 0
    is no limit. max_requests: at a time; 0: what the runtime runs and queues. Sizes in bytes, times
    in seconds. allowed_hosts: names by which the server may be called; none: any. cors_origins:
    pages of these origins may call; "*" is all. recordings: the folder that keeps the codes of
    recordings in requests, up to max_recordings_bytes; None: in memory only. first_chunk_frames,
    max_chunk_frames: of streams that do not say; 0: chosen by the load. drain_seconds: what runs
    may end when the server stops. replica: the number of this process among several.
    """

    model_name: str = "higgs-audio-v2"
    model_aliases: tuple[str, ...] = OPENAI_MODELS
    api_keys: tuple[str, ...] = ()
    requests_per_minute: int = 0
    max_requests: int = 0
    max_body_bytes: int = 16 << 20
    max_input_chars: int = 20_000
    max_reference_bytes: int = 10 << 20
    max_reference_seconds: float = 60.0
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    send_timeout: float = 60.0
    socket_idle_timeout: float = 60.0
    socket_message_bytes: int = 64 << 10
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    allow_voice_changes: bool = True
    recordings: Path | None = None
    max_recordings_bytes: int = DEFAULT_BYTES
    playground: bool = True
    first_chunk_frames: int = 0
    max_chunk_frames: int = 0
    drain_seconds: float = 10.0
    replica: int | None = None
