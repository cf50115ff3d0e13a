"""The runtime for Python: a loaded model that speaks, one request or many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from higgs_rt import _higgs_rt as native
from higgs_rt.checkpoint.files import ModelFiles, resolve_model
from higgs_rt.errors import CheckpointError, InvalidRequestError
from higgs_rt.guards import Guard
from higgs_rt.narration import LiveTurns, Narration, TextTurns, Turns
from higgs_rt.options import SpeakOptions, integer
from higgs_rt.prompt import (
    Convention,
    SpeechSettings,
    TextTokenizer,
    check_convention,
    read_settings,
)
from higgs_rt.prompt.limits import DEFAULT_MAX_LONG_CHARS
from higgs_rt.request import Job, RequestBuilder
from higgs_rt.sources import SingleSource
from higgs_rt.speech import AsyncSpeechStream, Speech, SpeechStream
from higgs_rt.voices import VoiceStore

if TYPE_CHECKING:
    from typing_extensions import Unpack

Text = str | Iterable[str]
UNLIMITED_CHARS = 1 << 30
_Stream = TypeVar("_Stream", SpeechStream, AsyncSpeechStream)


class Runtime:
    """A loaded model. All methods may be called from any thread; load again after a fork."""

    def __init__(
        self,
        runtime: native.Runtime,
        files: ModelFiles,
        voices: VoiceStore,
        *,
        convention: Convention,
        max_text_chars: int,
        settings: SpeechSettings,
        max_batch: int,
        max_queue: int,
    ) -> None:
        """For `load`, which see."""
        self._native = runtime
        self._voices = voices
        self._info = runtime.info
        self._builder = RequestBuilder(
            self._info,
            TextTokenizer.load(files.tokenizer),
            voices,
            convention=convention,
            max_text_chars=max_text_chars,
            settings=settings,
        )
        self.settings = settings
        self.max_text_chars = max_text_chars
        self.max_batch = max_batch
        self.max_queue = max_queue

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        codec: str | Path | None = None,
        device: str = "cpu",
        *,
        backend: str = "native",
        plan_dir: str | Path | None = None,
        threads: int = 0,
        max_batch: int = 32,
        max_queue: int = 256,
        max_step_tokens: int = 0,
        max_sequence: int = 4096,
        block_tokens: int = 16,
        num_blocks: int = 0,
        gpu_memory_fraction: float = 0.9,
        max_buffered_chunks: int = 64,
        max_held_steps: int = -1,
        prefix_cache: float = 0.25,
        adapter: str | Path | None = None,
        adapters: Mapping[str, str | Path] | None = None,
        max_text_chars: int = DEFAULT_MAX_LONG_CHARS,
        voices: str | Path | None = None,
        convention: Convention = "original",
    ) -> Runtime:
        """Load a model directory (either layout); None is the packaged demo model.

        codec: its directory, `<model>/codec` by default. plan_dir: the plans of backend "tensorrt",
        `<model>/tensorrt` by default. threads: 0 uses all cores. max_batch: requests at a time.
        max_queue: requests that wait; one more is refused. max_sequence: positions of one request,
        prompt and speech. num_blocks: KV blocks of `block_tokens` positions, 0 chooses: on a
        GPU what gpu_memory_fraction of its memory leaves room for. max_held_steps: steps that new
        requests may wait for others, so that their prompts interrupt the running ones together;
        -1: 0 on the CPU, 8 on a GPU. prefix_cache: share of the KV blocks, 0 to 1, that may keep
        the beginnings of prompts (a voice) for requests that begin alike; 0 is off. adapter: a
        folder with a LoRA adapter in peft's format, merged into the weights while they load (native
        backend; docs/training.md). adapters: such folders by name, kept apart from the weights, so
        that each request can choose one (`SpeakOptions.adapter`). max_text_chars: characters of a
        text that is given as one string. voices: the folder of stored voices. convention: prompt
        format, "original" or "transformers".

        Raises CheckpointError naming the file, tensor or field at fault.
        """
        check_convention(convention)
        files = resolve_model(model, codec)
        _prepare_codec(files.codec_dir)
        config = native.RuntimeConfig(
            str(files.model_dir),
            codec_dir=str(files.codec_dir),
            device=device,
            backend=backend,
            plan_dir="" if plan_dir is None else str(plan_dir),
            num_threads=integer("threads", threads),
            max_batch=integer("max_batch", max_batch),
            max_queue=integer("max_queue", max_queue),
            max_step_tokens=integer("max_step_tokens", max_step_tokens),
            max_sequence=integer("max_sequence", max_sequence),
            block_tokens=integer("block_tokens", block_tokens),
            num_blocks=integer("num_blocks", num_blocks),
            gpu_memory_fraction=gpu_memory_fraction,
            max_buffered_chunks=integer("max_buffered_chunks", max_buffered_chunks),
            max_held_steps=integer("max_held_steps", max_held_steps),
            prefix_cache=prefix_cache,
            adapter_dir="" if adapter is None else str(Path(adapter).expanduser()),
            adapters=_folders(adapters or {}),
        )
        store = VoiceStore(voices, codec_dir=files.codec_dir)
        return cls(
            native.Runtime.load(config),
            files,
            store,
            convention=convention,
            max_text_chars=max_text_chars,
            settings=read_settings(files.model_dir),
            max_batch=max_batch,
            max_queue=max_queue,
        )

    def speak(self, text: Text, **options: Unpack[SpeakOptions]) -> Speech:
        """Speak `text` and wait for all of it. See `SpeakOptions`.

        A text that is longer than the model can speak in one go, or a script of several speakers,
        is spoken turn after turn, as one answer; given in pieces, it is read as it is spoken.
        """
        return self.submit(text, **options).result()

    def stream(self, text: Text, **options: Unpack[SpeakOptions]) -> SpeechStream:
        """Speak `text`; iterate over chunks of samples as they are made."""
        return self.submit(text, stream=True, **options)

    async def aspeak(self, text: Text, **options: Unpack[SpeakOptions]) -> Speech:
        """`speak` without blocking the event loop; cancelling the task cancels the request."""
        return await (await self.asubmit(text, **options)).result()

    def astream(self, text: Text, **options: Unpack[SpeakOptions]) -> AsyncSpeechStream:
        """`stream` for `async for`; call it in a running event loop.

        A reader that takes its time pauses its request, once `max_buffered_chunks` wait for it.
        """
        job = self._builder.job(options)
        return self._open(text, job, AsyncSpeechStream, stream=True)

    async def asubmit(
        self, text: Text, *, stream: bool = False, **options: Unpack[SpeakOptions]
    ) -> AsyncSpeechStream:
        """`submit` for coroutines; a recording is encoded, and a long text begun, in a thread."""
        if options.get("ref_audio") is None:
            job = self._builder.job(options)
        else:
            job = await asyncio.to_thread(self._builder.job, options)
        return self._open(text, job, AsyncSpeechStream, stream=stream)

    def submit(
        self, text: Text, *, stream: bool = False, **options: Unpack[SpeakOptions]
    ) -> SpeechStream:
        """Queue a request and return at once; without `stream` it comes as one chunk.

        Raises InvalidRequestError, VoiceError or AudioError naming what is wrong, QueueFullError
        when `max_queue` requests wait.
        """
        return self._open(text, self._builder.job(options), SpeechStream, stream=stream)

    def live(self, **options: Unpack[SpeakOptions]) -> tuple[LiveTurns, AsyncSpeechStream]:
        """Speak a text while it is written: `feed` the first, read the second."""
        job = self._builder.job(options)
        turns = LiveTurns(job.max_turn_chars or UNLIMITED_CHARS, job.language)
        return turns, self._narrate(turns, job, AsyncSpeechStream, stream=True)

    def transcript(self, text: str, **options: Unpack[SpeakOptions]) -> str:
        """`text` as the model is asked for it: the transcript of its speech in a `history`."""
        return self._builder.transcript(text, options)

    @property
    def voices(self) -> VoiceStore:
        """Stored voices: add, list, show, remove."""
        return self._voices

    @property
    def info(self) -> native.ModelInfo:
        """What is loaded, where, and its limits."""
        return self._info

    @property
    def stats(self) -> native.RuntimeStats:
        """Counters since loading."""
        return self._native.stats

    @property
    def frame_rate(self) -> float:
        """Frames (and columns) of one second of speech."""
        return self._info.sample_rate / self._info.samples_per_frame

    def close(self) -> None:
        """Cancel everything and stop; later requests are refused. Idempotent."""
        self._native.shutdown()

    def __enter__(self) -> Runtime:
        """The runtime itself; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _open(self, text: Text, job: Job, kind: type[_Stream], *, stream: bool) -> _Stream:
        if isinstance(text, str) or not isinstance(text, Iterable):
            self._builder.checked(text)
            spoken = self._builder.in_one_go(job, text)
            if spoken is not None:
                return self._single(spoken, job, kind, stream=stream)
            job = self._builder.check_script(job, text)
        turns = TextTurns(text, job.max_turn_chars or UNLIMITED_CHARS, job.language)
        return self._narrate(turns, job, kind, stream=stream)

    def _single(self, text: str, job: Job, kind: type[_Stream], *, stream: bool) -> _Stream:
        native_stream = self._native.submit(self._builder.request(job, text, stream=stream))
        source = SingleSource(
            native_stream,
            Guard(self.frame_rate, self._info.samples_per_frame) if job.guards else None,
            self._info.samples_per_frame,
            len(text),
        )
        return kind(self._native, source, self._info.sample_rate, int(job.sampling.seed))

    def _narrate(self, turns: Turns, job: Job, kind: type[_Stream], *, stream: bool) -> _Stream:
        narration = Narration(
            self._native, self._builder, job, turns, stream=stream, guarded=job.guards
        )
        return kind(self._native, narration, self._info.sample_rate, int(job.sampling.seed))


def _folders(adapters: Mapping[str, str | Path]) -> dict[str, str]:
    if not isinstance(adapters, Mapping):
        raise InvalidRequestError(
            f"[adapters] expected folders by name, got {type(adapters).__name__}"
        )
    return {name: str(Path(folder).expanduser()) for name, folder in adapters.items()}


def _prepare_codec(directory: Path) -> None:
    """The native decoder reads safetensors; of an original `model.pth` it needs an export once."""
    stored = ("model.safetensors", "model.safetensors.index.json", "decoder.safetensors")
    if any((directory / name).is_file() for name in stored):
        return
    try:
        from higgs_rt.codec.export import export_decoder_safetensors
    except ImportError as error:
        raise CheckpointError(
            f"[{directory / 'model.pth'}] expected torch, which converts it once "
            f"(pip install 'higgs-rt[voices]'), got: {error}"
        ) from None
    export_decoder_safetensors(directory)
