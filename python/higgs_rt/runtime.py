"""The runtime for Python: a loaded model that speaks, one request or many at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from higgs_rt import _higgs_rt as native
from higgs_rt.checkpoint.files import ModelFiles, resolve_model
from higgs_rt.errors import CheckpointError
from higgs_rt.prompt import DEFAULT_MAX_TEXT_CHARS, Convention, TextTokenizer, check_convention
from higgs_rt.request import RequestBuilder, SpeakOptions, integer
from higgs_rt.speech import AsyncSpeechStream, Speech, SpeechStream
from higgs_rt.voices import VoiceStore

if TYPE_CHECKING:
    from typing_extensions import Unpack

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
        )

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        codec: str | Path | None = None,
        device: str = "cpu",
        *,
        backend: str = "native",
        threads: int = 0,
        max_batch: int = 32,
        max_queue: int = 256,
        max_step_tokens: int = 256,
        max_sequence: int = 4096,
        block_tokens: int = 16,
        num_blocks: int = 0,
        max_buffered_chunks: int = 64,
        max_text_chars: int = DEFAULT_MAX_TEXT_CHARS,
        voices: str | Path | None = None,
        convention: Convention = "original",
    ) -> Runtime:
        """Load a model directory (either layout); None is the packaged demo model.

        codec: its directory, `<model>/codec` by default. threads: 0 uses all cores. max_batch:
        requests at a time. max_queue: requests that wait; one more is refused. max_sequence:
        positions of one request, prompt and speech. num_blocks: KV blocks of `block_tokens`
        positions, 0 chooses. max_text_chars: characters of one text. voices: the folder of stored
        voices. convention: prompt format, "original" or "transformers".

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
            num_threads=integer("threads", threads),
            max_batch=integer("max_batch", max_batch),
            max_queue=integer("max_queue", max_queue),
            max_step_tokens=integer("max_step_tokens", max_step_tokens),
            max_sequence=integer("max_sequence", max_sequence),
            block_tokens=integer("block_tokens", block_tokens),
            num_blocks=integer("num_blocks", num_blocks),
            max_buffered_chunks=integer("max_buffered_chunks", max_buffered_chunks),
        )
        store = VoiceStore(voices, codec_dir=files.codec_dir)
        return cls(
            native.Runtime.load(config),
            files,
            store,
            convention=convention,
            max_text_chars=max_text_chars,
        )

    def speak(self, text: str, **options: Unpack[SpeakOptions]) -> Speech:
        """Speak `text` and wait for all of it. See `SpeakOptions`."""
        return self.submit(text, **options).result()

    def stream(self, text: str, **options: Unpack[SpeakOptions]) -> SpeechStream:
        """Speak `text`; iterate over chunks of samples as they are made."""
        return self.submit(text, stream=True, **options)

    async def aspeak(self, text: str, **options: Unpack[SpeakOptions]) -> Speech:
        """`speak` without blocking the event loop; cancelling the task cancels the request."""
        if options.get("ref_audio") is None:
            request = self._builder.build(text, False, options)
        else:  # encoding a recording takes a while
            request = await asyncio.to_thread(self._builder.build, text, False, options)
        return await self._submit(request, AsyncSpeechStream).result()

    def astream(self, text: str, **options: Unpack[SpeakOptions]) -> AsyncSpeechStream:
        """`stream` for `async for`; call it in a running event loop."""
        return self._submit(self._builder.build(text, True, options), AsyncSpeechStream)

    def submit(
        self, text: str, *, stream: bool = False, **options: Unpack[SpeakOptions]
    ) -> SpeechStream:
        """Queue a request and return at once; without `stream` it comes as one chunk.

        Raises InvalidRequestError, VoiceError or AudioError naming what is wrong, QueueFullError
        when `max_queue` requests wait.
        """
        return self._submit(self._builder.build(text, stream, options), SpeechStream)

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

    def _submit(self, request: native.Request, kind: type[_Stream]) -> _Stream:
        stream = self._native.submit(request)
        return kind(self._native, stream, self._info.sample_rate, int(request.sampling.seed))


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
