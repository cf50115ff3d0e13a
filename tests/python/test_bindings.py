"""The native module: arrays, errors, waiting, signals, callbacks, end of life."""

from __future__ import annotations

import gc
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from higgs_rt import _higgs_rt as native
from higgs_rt.errors import CheckpointError, HiggsError, InvalidRequestError, QueueFullError


def config(model: Path, **options: object) -> native.RuntimeConfig:
    values: dict[str, object] = {"max_batch": 4, "max_sequence": 2048, "num_threads": 2}
    return native.RuntimeConfig(str(model), **{**values, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def endless_model(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random model with zeroed BOS and EOS rows: with a small top_k it never ends."""
    directory = tmp_path_factory.mktemp("endless") / "model"
    shutil.copytree(random_model, directory)
    (weights,) = directory.glob("*.safetensors")
    tensors = load_file(weights)
    head = tensors["audio_lm_head.weight"].reshape(8, -1, 64)
    head[:, -2:] = 0
    save_file(tensors, weights, metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="module")
def runtime(endless_model: Path) -> Iterator[native.Runtime]:
    loaded = native.Runtime.load(config(endless_model))
    yield loaded
    loaded.shutdown()


def request(max_columns: int, *, seed: int = 0, stream: bool = False) -> native.Request:
    return native.Request(
        [native.PromptSegment.text([1, 2, 3, 301])],
        native.SamplingParams(temperature=1.0, top_k=5, top_p=1.0, ras_window=0, seed=seed),
        max_columns=max_columns,
        stream=stream,
    )


def chunks(stream: native.Stream) -> list[native.Chunk]:
    out = []
    while (chunk := stream.next(timeout=60)) is not None:
        out.append(chunk)
    return out


def test_arrays_of_a_chunk(runtime: native.Runtime) -> None:
    whole = chunks(runtime.submit(request(30)))
    assert len(whole) == 1
    chunk = whole[0]
    assert chunk.last and chunk.finish is native.FinishReason.LENGTH and chunk.error == ""
    assert chunk.pcm.dtype == np.float32 and chunk.frames.dtype == np.int32
    assert chunk.columns.shape == (30, 8)
    assert chunk.pcm.shape == (chunk.frames.shape[1] * runtime.info.samples_per_frame,)
    assert chunk.frames.shape == (8, 22)
    streamed = chunks(runtime.submit(request(30, stream=True)))
    np.testing.assert_array_equal(np.concatenate([c.pcm for c in streamed]), chunk.pcm)
    np.testing.assert_array_equal(np.concatenate([c.frames for c in streamed], 1), chunk.frames)
    decoded = runtime.decode_frames(chunk.frames)
    np.testing.assert_array_equal(decoded, chunk.pcm)
    # An array keeps the chunk's memory alive.
    pcm, copy = chunk.pcm, chunk.pcm.copy()
    del chunk, whole
    gc.collect()
    np.testing.assert_array_equal(pcm, copy)


def test_arrays_are_checked() -> None:
    with pytest.raises(InvalidRequestError, match=r"\[codes\] expected integers, got dtype float"):
        native.PromptSegment.audio(np.zeros((8, 3)))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match=r"\[codes\] expected 2 axes, got shape \(3,\)"):
        native.PromptSegment.audio(np.zeros(3, np.int32))
    with pytest.raises(InvalidRequestError, match=r"\[codes\] expected ids in .*, got -1"):
        native.PromptSegment.audio(np.full((8, 1), -1, np.int32))
    with pytest.raises(InvalidRequestError, match=r"\[codes\] expected ids in"):
        native.PromptSegment.audio(np.full((8, 1), 2**40))
    with pytest.raises(InvalidRequestError, match=r"\[rows\] expected floating-point"):
        native.PromptSegment.table(np.zeros((2, 4), np.int32))
    # Any memory layout and integer width will do.
    codes = np.arange(16, dtype=np.uint8).reshape(2, 8).T
    np.testing.assert_array_equal(
        native.apply_delay(codes, 30),  # type: ignore[arg-type]
        native.apply_delay(np.ascontiguousarray(codes.astype(np.int32)), 30),
    )


def test_errors_are_the_packages_own(runtime: native.Runtime, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="temperature"):
        runtime.submit(
            native.Request(
                [native.PromptSegment.text([1])],
                native.SamplingParams(temperature=-1.0),
                max_columns=9,
            )
        )
    with pytest.raises(InvalidRequestError, match=r"codes \[num_codebooks 8"):
        transposed = native.PromptSegment.audio(np.zeros((5, 8), np.int32))
        runtime.submit(native.Request([transposed, native.PromptSegment.text([1])]))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        native.Runtime.load(native.RuntimeConfig(str(tmp_path)))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"model_type|missing"):
        native.Runtime.load(native.RuntimeConfig(str(tmp_path)))
    with pytest.raises(InvalidRequestError, match="max_batch"):
        native.Runtime.load(native.RuntimeConfig(str(tmp_path), max_batch=0))
    with pytest.raises(HiggsError, match="CUDA"):
        native.Runtime.load(native.RuntimeConfig(runtime.info.model_dir, device="cuda"))


def test_full_queue(endless_model: Path) -> None:
    small = native.Runtime.load(config(endless_model, max_batch=1, max_queue=1))
    accepted = []
    with pytest.raises(QueueFullError, match="max_queue"):
        for _ in range(50):
            accepted.append(small.submit(request(400)))
    for stream in accepted:
        assert chunks(stream)[-1].finish is not native.FinishReason.ERROR
    small.shutdown()


def test_timeout_and_cancel(runtime: native.Runtime) -> None:
    stream = runtime.submit(request(1900, stream=True))
    first = stream.next(timeout=60)
    assert first is not None
    stream.cancel()
    assert chunks(stream)[-1].finish is native.FinishReason.CANCELLED
    assert stream.next(timeout=0) is None and stream.done and stream.id > 0
    assert 0 <= stream.timing.started <= stream.timing.first_chunk <= stream.timing.finished
    with pytest.raises(ValueError, match="nan"):
        stream.next(timeout=float("nan"))
    # The last one has others before it, however late this thread asks.
    waiting = [runtime.submit(request(1900)) for _ in range(8)]
    with pytest.raises(TimeoutError, match="timeout"):
        waiting[-1].next(timeout=0)
    for one in waiting:
        one.cancel()


def test_callbacks(runtime: native.Runtime, capfd: pytest.CaptureFixture[str]) -> None:
    expected = chunks(runtime.submit(request(60)))[0]
    got: list[native.Chunk] = []
    ended = threading.Event()

    def collect(chunk: native.Chunk) -> None:
        got.append(chunk)
        if chunk.last:
            ended.set()
        raise RuntimeError("from the callback")

    hook, reported = sys.unraisablehook, []
    sys.unraisablehook = lambda unraisable: reported.append(str(unraisable.exc_value))
    try:
        stream = runtime.submit(request(60, stream=True))
        stream.on_chunk(collect)
        assert ended.wait(60)
        runtime.submit(request(9)).next()  # the callback has returned
    finally:
        sys.unraisablehook = hook
    np.testing.assert_array_equal(np.concatenate([c.pcm for c in got]), expected.pcm)
    assert reported and set(reported) == {"from the callback"}
    with pytest.raises(InvalidRequestError, match="got both"):
        stream.next()


def record(seen: list[bool]) -> Callable[[native.Chunk], None]:
    return lambda chunk: seen.append(chunk.last)


def test_shutdown_while_callbacks_run(endless_model: Path) -> None:
    for _ in range(5):
        loaded = native.Runtime.load(config(endless_model))
        streams = [loaded.submit(request(900, seed=seed, stream=True)) for seed in range(6)]
        seen: list[bool] = []
        for stream in streams:
            stream.on_chunk(record(seen))
        loaded.shutdown()
        assert all(stream.done for stream in streams) and seen.count(True) == 6
        del loaded
    with pytest.raises(HiggsError, match="shutting down"):
        gone = native.Runtime.load(config(endless_model))
        gone.shutdown()
        gone.submit(request(9))


def test_waiting_releases_the_gil(runtime: native.Runtime) -> None:
    """Other Python threads run while one waits for a stream."""
    blocked = runtime.submit(request(1900))
    thread = threading.Thread(target=chunks, args=(blocked,))
    thread.start()
    ticks = 0
    while thread.is_alive():
        ticks += 1
        time.sleep(0.001)
    thread.join()
    assert ticks > 5


def run_script(body: str, model: Path, stop_after: float | None = None) -> tuple[int, str]:
    """Run a script in an interpreter of its own; send it SIGINT once it says `ready`."""
    process = subprocess.Popen(
        [sys.executable, "-c", body, str(model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    if stop_after is not None:
        assert process.stdout.readline() == "ready\n"
        time.sleep(stop_after)
        process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


SCRIPT = """
import sys
from higgs_rt import _higgs_rt as native
config = native.RuntimeConfig(sys.argv[1], max_buffered_chunks=1, num_threads=1)
runtime = native.Runtime.load(config)
sampling = native.SamplingParams(temperature=1.0, top_k=5, top_p=1.0, ras_window=0)
def submit(max_columns, stream):
    return runtime.submit(native.Request(
        [native.PromptSegment.text([1, 2, 3])], sampling, max_columns=max_columns, stream=stream))
"""


def test_ctrl_c_interrupts_waiting(endless_model: Path) -> None:
    # One chunk at the end, so that next() waits all the time.
    body = SCRIPT + (
        "print('ready', flush=True)\n"
        "try:\n"
        "    while True: submit(3000, False).next()\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    status, output = run_script(body, endless_model, stop_after=0.5)
    assert status == 0 and "interrupted" in output


def test_interpreter_exit_with_live_streams(endless_model: Path) -> None:
    """The interpreter ends while callbacks run: no hang, no crash."""
    body = SCRIPT + (
        "streams = [submit(900, True) for _ in range(20)]\n"
        "for stream in streams[:10]: stream.on_chunk(lambda chunk: chunk.pcm.sum())\n"
        "print('end')\n"
    )
    status, output = run_script(body, endless_model)
    assert (status, output) == (0, "end\n")


def test_interpreter_exit_with_waiting_daemon_threads(endless_model: Path) -> None:
    """Threads that wait, or get an error, when the interpreter ends must not abort the process."""
    body = SCRIPT + (
        "import threading, time\n"
        "def wait():\n"
        "    submit(3000, False).next()\n"
        "def fail():\n"
        "    while True:\n"
        "        try: submit(0, False)\n"
        "        except ValueError: pass\n"
        "for target in (wait, wait, fail): threading.Thread(target=target, daemon=True).start()\n"
        "time.sleep(0.3)\n"
        "print('end')\n"
    )
    for _ in range(3):
        status, output = run_script(body, endless_model)
        assert (status, output) == (0, "end\n")


def test_a_forked_child_can_end(endless_model: Path) -> None:
    """Its threads did not survive: it is refused what it asks, and drops what it has."""
    body = SCRIPT + (
        "import os, sys, threading\n"
        "stream = submit(3000, True)\n"
        "stream.next()\n"
        "waiting = submit(3000, False)\n"
        "threading.Thread(target=lambda: waiting.next(), daemon=True).start()\n"
        "for leave in (lambda: None, lambda: globals().clear()):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        for ask in (lambda: submit(1, False), lambda: runtime.stats, stream.next):\n"
        "            try: ask()\n"
        "            except Exception as error: assert 'load after forking' in str(error), error\n"
        "            else: os._exit(3)\n"
        "        stream.cancel(); runtime.shutdown()\n"
        "        leave()\n"
        "        raise SystemExit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "assert stream.next() is not None\n"
        "print('end')\n"
    )
    status, output = run_script(body, endless_model)
    assert (status, output) == (0, "end\n")


def test_module_says_what_it_is() -> None:
    assert native.version() in native.build_info()
    assert "cpu" in native.build_info()
