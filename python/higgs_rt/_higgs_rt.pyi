"""Native module: bindings of the C++ API (csrc/include/higgs_rt). No logic lives here.

Every call that can wait releases the GIL. Errors of the runtime are raised as the classes of
`higgs_rt.errors`, chosen by the C++ error code.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

class StreamRule(Enum):
    FIRST_EOS = 0
    TRANSFORMERS = 1

class FinishReason(Enum):
    NONE = 0
    STOP = 1
    LENGTH = 2
    CANCELLED = 3
    ERROR = 4

class OutputKind(Enum):
    WAVEFORM = 0
    FRAMES = 1

class SamplingParams:
    temperature: float
    top_k: int
    top_p: float
    ras_window: int
    ras_max_repeat: int
    seed: int
    rule: StreamRule
    def __init__(
        self,
        *,
        temperature: float = 0.7,
        top_k: int = 0,
        top_p: float = 0.95,
        ras_window: int = 7,
        ras_max_repeat: int = 2,
        seed: int = 0,
        rule: StreamRule = ...,
    ) -> None: ...

class PromptSegment:
    @staticmethod
    def text(ids: Sequence[int]) -> PromptSegment: ...
    @staticmethod
    def audio(codes: NDArray[np.int32]) -> PromptSegment:
        """codes [num_codebooks, num_frames], without BOS, EOS and delay."""
    @staticmethod
    def table(rows: NDArray[np.float32]) -> PromptSegment:
        """rows [n, hidden_size]."""

class Request:
    max_columns: int
    output: OutputKind
    stream: bool
    first_chunk_frames: int
    max_chunk_frames: int
    sampling: SamplingParams
    adapter: str
    def __init__(
        self,
        prompt: Sequence[PromptSegment],
        sampling: SamplingParams = ...,
        *,
        max_columns: int = 2048,
        output: OutputKind = ...,
        stream: bool = False,
        first_chunk_frames: int = 8,
        max_chunk_frames: int = 64,
        adapter: str = "",
    ) -> None: ...

class Chunk:
    @property
    def pcm(self) -> NDArray[np.float32]:
        """[num_samples], mono in [-1, 1]; empty for OutputKind.FRAMES."""
    @property
    def frames(self) -> NDArray[np.int32]:
        """[num_codebooks, num_frames]."""
    @property
    def columns(self) -> NDArray[np.int32]:
        """[num_columns, num_codebooks], last chunk only; the all-BOS column comes first."""
    @property
    def last(self) -> bool: ...
    @property
    def finish(self) -> FinishReason: ...
    @property
    def error(self) -> str: ...

class RequestTiming:
    started: Final[float]
    first_column: Final[float]
    first_chunk: Final[float]
    finished: Final[float]

class Notifier:
    """Tells an event loop, by a file descriptor, which streams have something to read."""

    def __init__(self) -> None: ...
    @property
    def fd(self) -> int:
        """Readable while there are tokens to take; closed with the notifier."""
    def take(self) -> list[int]:
        """Tokens of the streams that got chunks since the last call. Does not wait."""

class Stream:
    def next(self, timeout: float | None = None) -> Chunk | None:
        """Next chunk; None after the last one. Raises TimeoutError after `timeout` seconds.

        Wakes up regularly to let Python handle signals, so Ctrl-C works while waiting.
        """
    def on_chunk(self, callback: Callable[[Chunk], None]) -> None:
        """Calls back from a runtime thread (with the GIL held) for every chunk."""
    def notify(self, notifier: Notifier, token: int) -> None:
        """From now on `notifier` gets `token` whenever `next` has a chunk; once per stream.

        It gets it at once when there is one already.
        """
    def cancel(self) -> None: ...
    @property
    def done(self) -> bool: ...
    @property
    def id(self) -> int: ...
    @property
    def timing(self) -> RequestTiming: ...

class RuntimeConfig:
    model_dir: str
    codec_dir: str
    device: str
    backend: str
    plan_dir: str
    num_threads: int
    max_batch: int
    max_queue: int
    max_step_tokens: int
    max_sequence: int
    block_tokens: int
    num_blocks: int
    gpu_memory_fraction: float
    max_buffered_chunks: int
    max_held_steps: int
    prefix_cache: float
    adapter_dir: str
    adapters: dict[str, str]
    def __init__(
        self,
        model_dir: str,
        *,
        codec_dir: str = "",
        device: str = "cpu",
        backend: str = "native",
        plan_dir: str = "",
        num_threads: int = 0,
        max_batch: int = 32,
        max_queue: int = 256,
        max_step_tokens: int = 0,
        max_sequence: int = 4096,
        block_tokens: int = 16,
        num_blocks: int = 0,
        max_buffered_chunks: int = 64,
        gpu_memory_fraction: float = 0.9,
        max_held_steps: int = -1,
        prefix_cache: float = 0.25,
        adapter_dir: str = "",
        adapters: Mapping[str, str] = ...,
    ) -> None: ...

class ModelInfo:
    model_dir: Final[str]
    layout: Final[str]
    weight_dtype: Final[str]
    device: Final[str]
    engine: Final[str]
    num_parameters: Final[int]
    num_layers: Final[int]
    hidden_size: Final[int]
    num_heads: Final[int]
    num_kv_heads: Final[int]
    head_dim: Final[int]
    text_vocab: Final[int]
    num_codebooks: Final[int]
    codebook_vocab: Final[int]
    max_sequence: Final[int]
    block_tokens: Final[int]
    num_blocks: Final[int]
    kv_bytes: Final[int]
    weight_bytes: Final[int]
    workspace_bytes: Final[int]
    codec_bytes: Final[int]
    graph_bytes: Final[int]
    device_bytes: Final[int]
    has_codec: Final[bool]
    sample_rate: Final[int]
    samples_per_frame: Final[int]
    num_threads: Final[int]
    cpu_isa: Final[str]
    adapters: Final[list[str]]

class RuntimeStats:
    submitted: Final[int]
    finished: Final[int]
    cancelled: Final[int]
    failed: Final[int]
    refused: Final[int]
    preemptions: Final[int]
    steps: Final[int]
    columns: Final[int]
    prompt_rows: Final[int]
    running: Final[int]
    waiting: Final[int]
    free_blocks: Final[int]
    total_blocks: Final[int]
    forward_seconds: Final[float]
    sample_seconds: Final[float]
    wait_seconds: Final[float]
    device_seconds: Final[float]
    graph_seconds: Final[float]
    graph_steps: Final[int]
    graph_rows: Final[int]
    prefix_positions: Final[int]
    prefix_hits: Final[int]
    prefix_evictions: Final[int]
    cached_blocks: Final[int]
    step_seconds: Final[float]

class Runtime:
    @staticmethod
    def load(config: RuntimeConfig) -> Runtime: ...
    def submit(self, request: Request) -> Stream: ...
    def decode_frames(self, codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """codes [num_codebooks, num_frames] -> pcm [num_frames * samples_per_frame]."""
    @property
    def info(self) -> ModelInfo: ...
    @property
    def stats(self) -> RuntimeStats: ...
    def shutdown(self) -> None: ...

class Probe:
    """Teacher-forced logits of an engine, for parity tests and verification."""
    def __init__(self, config: RuntimeConfig) -> None: ...
    def logits(
        self,
        prompt: Sequence[PromptSegment],
        columns: NDArray[np.int32],
        chunk_rows: int = 0,
        adapter: str = "",
    ) -> NDArray[np.float32]:
        """Runs prompt then `columns` [n, num_codebooks] (BOS column first).

        Returns [n, num_codebooks, codebook_vocab]: the logits at every given column. `chunk_rows`
        splits the run into steps of at most that many rows; 0: as large as the engine allows.
        """

def apply_delay(codes: NDArray[np.int32], codebook_size: int) -> NDArray[np.int32]:
    """codes [K, T] -> columns [T + K + 1, K] with BOS and EOS columns (specification 5)."""

def build_info() -> str: ...
def version() -> str: ...
