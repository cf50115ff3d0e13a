"""Bodies of requests and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from higgs_rt.prompt import Dialogue, Placement
from higgs_rt.server.formats import Format

_MAX_SEED = (1 << 63) - 1


class VoiceId(BaseModel):
    """A stored voice, as newer clients name it."""

    model_config = ConfigDict(extra="forbid")
    id: str = Field(min_length=1, max_length=64)


VoiceField = Annotated[
    str | VoiceId | None,
    Field(description='A stored voice; null or "default": the model\'s own.'),
]


class SamplingFields(BaseModel):
    """The model's own fields, the same everywhere."""

    model_config = ConfigDict(extra="forbid")

    ref_audio: str | None = Field(
        None, description="A recording to imitate: the file, in base64 or as a data: URI."
    )
    ref_text: str | None = Field(None, description="The words spoken in ref_audio.")
    speakers: list[Annotated[str, Field(min_length=1, max_length=64)]] | None = Field(
        None, max_length=64, description="Voices of [SPEAKER0], [SPEAKER1], … in the text."
    )
    seed: int | None = Field(None, ge=0, le=_MAX_SEED, description="Repeats an answer.")
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy.")
    top_k: int | None = Field(None, ge=0, le=2048, description="0 is off.")
    top_p: float | None = Field(None, gt=0, le=1)
    ras_window: int | None = Field(None, ge=0, le=64, description="0 is off.")
    ras_max_repeat: int | None = Field(None, ge=1, le=64)
    max_seconds: float | None = Field(None, gt=0, le=36_000)
    normalize: bool | None = None
    language: str | None = Field(None, max_length=8, description='Of numbers; "auto", "en", …')
    max_turn_chars: int | None = Field(None, ge=8, le=100_000)
    context_turns: int | None = Field(None, ge=0, le=100)
    dialogue: Dialogue | None = Field(None, description="How [SPEAKERn] scripts are asked for.")
    placement: Placement | None = Field(None, description="Where references go in the prompt.")
    guards: bool | None = None
    first_chunk_frames: int | None = Field(None, ge=1, le=64)
    max_chunk_frames: int | None = Field(None, ge=1, le=256)


class SpeechRequest(SamplingFields):
    """`POST /v1/audio/speech`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"model": "tts-1", "input": "The sun rises in the east.", "voice": "slt"},
                {
                    "model": "higgs-audio-v2",
                    "input": "[SPEAKER0] Who is it? [SPEAKER1] It is me.",
                    "speakers": ["slt", "rms"],
                    "response_format": "wav",
                    "seed": 7,
                },
            ]
        },
    )
    model: str = Field(
        min_length=1, max_length=128, description="The model, or one of its adapters."
    )
    input: str = Field(min_length=1, description="What to say.")
    voice: VoiceField = None
    response_format: Format = "mp3"
    speed: float = Field(1.0, ge=0.25, le=4.0, description="Tempo; the pitch stays.")
    stream_format: Literal["audio", "sse"] = "audio"
    stream: bool = Field(
        True, description="false: the whole file at once, with its length and stop reason."
    )
    instructions: str | None = Field(
        None, max_length=5000, description="The scene: where it is recorded, how it sounds."
    )


class ChatAudio(BaseModel):
    """How a chat answer sounds."""

    model_config = ConfigDict(extra="forbid")
    voice: VoiceField = None
    format: Format | Literal["pcm16"] = "wav"


class InputAudio(BaseModel):
    """A recording in a message."""

    model_config = ConfigDict(extra="forbid")
    data: str = Field(description="base64")
    format: str | None = None


class ContentPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text", "input_audio"]
    text: str | None = None
    input_audio: InputAudio | None = None


class AudioId(BaseModel):
    """An earlier answer of this server."""

    model_config = ConfigDict(extra="ignore")
    id: str = Field(min_length=1, max_length=64)


class ChatMessage(BaseModel):
    """One message. An assistant's has the audio it spoke: by id, or as a recording."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart] | None = None
    audio: AudioId | None = None


class ChatRequest(SamplingFields):
    """`POST /v1/chat/completions`: the last user message is spoken, after what came before."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "model": "gpt-audio",
                    "modalities": ["text", "audio"],
                    "audio": {"voice": "slt", "format": "wav"},
                    "messages": [{"role": "user", "content": "The sun rises in the east."}],
                }
            ]
        },
    )
    model: str = Field(
        min_length=1, max_length=128, description="The model, or one of its adapters."
    )
    messages: list[ChatMessage] = Field(min_length=1, max_length=256)
    modalities: list[Literal["text", "audio"]] = Field(["text", "audio"], max_length=4)
    audio: ChatAudio = ChatAudio()
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    n: Literal[1] = 1
    max_tokens: int | None = Field(None, ge=1, description="Frames: 25 a second.")
    max_completion_tokens: int | None = Field(None, ge=1, description="The same.")
    # Sent by many clients, without meaning here.
    store: bool | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_format: dict[str, Any] | None = None
    service_tier: str | None = None


class ModelCard(BaseModel):
    """The model, or an adapter of it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "higgs_rt"
    parent: str | None = Field(default=None, description="Of an adapter: the model.")


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class VoiceCard(BaseModel):
    """A stored voice."""

    id: str
    name: str
    object: Literal["voice"] = "voice"
    seconds: float
    transcript: str
    packaged: bool
    usable: bool


class VoiceList(BaseModel):
    """All stored voices."""

    object: Literal["list"] = "list"
    data: list[VoiceCard]
    voices: list[str]


class VoiceUpload(BaseModel):
    """A new voice, as JSON."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"name": "anna", "ref_text": "The words.", "ref_audio": "UklGRg=="}]
        },
    )
    name: str = Field(min_length=1, max_length=64)
    ref_text: str = Field(min_length=1, max_length=5000)
    ref_audio: str = Field(description="The file, in base64 or as a data: URI.")
    replace: bool = False


class Deleted(BaseModel):
    """What was deleted."""

    id: str
    object: Literal["voice"] = "voice"
    deleted: Literal[True] = True


class RequestReport(BaseModel):
    """How a request ended."""

    id: str
    finish: str
    seed: int
    seconds: float
    first_audio: float = Field(description="Seconds from the request to its first audio.")
    took: float
    turns: int


class Health(BaseModel):
    """Whether the server is there."""

    status: Literal["ok"] = "ok"
    model: str
    running: int
    waiting: int
