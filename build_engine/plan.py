"""Building a plan from a definition: targets, profiles, memory need, progress, writing."""

from __future__ import annotations

import ctypes
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_engine.backend import Package
from build_engine.definition import Definition
from build_engine.dtypes import item_size
from build_engine.errors import BuildError

# [min, opt, max] of each named dimension.
Dims = dict[str, tuple[int, int, int]]
# A step of the build: its name and the share that is done, 0..1.
OnProgress = Callable[[str, float], None]

# Anonymous memory that TensorRT for RTX 1.7 takes per byte of constants while it writes a plan to a
# file, and beside them; measured with 28 layers in bf16 (docs/tensorrt.md). TensorRT also tunes
# kernels on the GPU and was not measured.
BYTES_PER_CONSTANT_BYTE = 1.7
BASE_BYTES = 600 << 20


@dataclass(frozen=True)
class Profile:
    """An optimization profile; the place in the list is its index in the plan."""

    name: str
    dims: Dims


def current_target() -> str | None:
    """`smXY` of this machine's first CUDA device, None without one."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None
    for value, attribute in ((major, 75), (minor, 76)):  # COMPUTE_CAPABILITY_MAJOR, _MINOR
        if cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
            return None
    return f"sm{major.value}{minor.value}"


def resolve_targets(package: Package, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Compute capabilities to build for; raises BuildError for one that the package cannot."""
    here = current_target()
    if "current" in wanted and here is None:
        offered = f"; name some of {', '.join(_offered(package))}" if package.cross_builds else ""
        raise BuildError(f"[targets] expected a CUDA device for 'current', got none{offered}")
    targets = tuple(dict.fromkeys(here or "" if name == "current" else name for name in wanted))
    if not package.cross_builds:
        if targets != (here,):
            raise BuildError(
                f"[targets] expected {here or 'a CUDA device'} ({package.backend} tunes on the GPU "
                f"that it builds for), got {', '.join(targets)}"
            )
        return targets
    for name in targets:
        if name not in _offered(package):
            raise BuildError(
                f"[targets] expected some of {', '.join(_offered(package))} ({package.backend} "
                f"{package.version} builds for no other), got {name!r}"
            )
    return targets


def _offered(package: Package) -> list[str]:
    names = package.trt.ComputeCapability.__members__
    return [name.lower() for name in names if name.startswith("SM")]


def constant_bytes(definition: Definition) -> int:
    """Bytes of all constants and convolution kernels."""
    constants = sum(w.values.size * item_size(w.dtype) for w in definition.weights.values())
    return constants + sum(int(array.nbytes) for array in definition.kernels)


def _converted_bytes(definition: Definition) -> int:
    """Of these, what is a converted copy in memory and not the checkpoint's mapped file."""
    return sum(
        weight.values.size * item_size(weight.dtype)
        for name, weight in definition.weights.items()
        if name in definition.stored and definition.stored[name].dtype != weight.dtype
    )


def memory_need(definition: Definition) -> int:
    """Bytes of memory that the build takes, the mapped checkpoint not counted."""
    constants = BYTES_PER_CONSTANT_BYTE * constant_bytes(definition)
    return int(BASE_BYTES + constants) + _converted_bytes(definition)


def available_memory() -> int | None:
    """Bytes that this machine can give without swapping, None where it does not tell."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(fields["MemAvailable"].split()[0]) << 10 if "MemAvailable" in fields else None


def check_memory(need: int, where: str) -> None:
    """Raise BuildError when the machine has less than `need` bytes."""
    have = available_memory()
    if have is not None and need > have:
        raise BuildError(
            f"[{where}] expected {need / 2**30:.1f} GiB of free memory, got "
            f"{have / 2**30:.1f} GiB; --weights inputs needs about 1 GiB (--no-memory-check builds "
            "all the same)"
        )


class BuildLog:
    """TensorRT's messages: warnings and errors are kept for the report and for refusals."""

    def __init__(self, trt: Any) -> None:
        """`logger` is the object to give to TensorRT."""
        self.lines: list[str] = []
        lines = self.lines

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.WARNING:
                    lines.append(f"{severity.name.lower()}: {message.strip()}")

        self.logger = Logger()

    def errors(self) -> str:
        """The errors so far on one line, shortened."""
        found = [line for line in self.lines if not line.startswith("warning")]
        return "; ".join(found)[:800] or "no message"


def _monitor(trt: Any, report: OnProgress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._steps[name] = max(steps, 1)
            report(name, 0.0)

        def step_complete(self, name: str, step: int) -> bool:
            report(name, min((step + 1) / self._steps.get(name, 1), 1.0))
            return True  # False would cancel the build

        def phase_finish(self, name: str) -> None:
            report(name, 1.0)

    return Monitor()


@dataclass(frozen=True)
class BuiltPlan:
    """A plan on disk. peak_bytes: greatest resident memory of the process so far, mapped files
    included.
    """

    path: Path
    plan_bytes: int
    seconds: float
    peak_bytes: int
    warnings: tuple[str, ...]


def build_plan(
    package: Package,
    builder: Any,
    log: BuildLog,
    definition: Definition,
    profiles: list[Profile],
    targets: tuple[str, ...],
    path: Path,
    report: OnProgress = lambda name, share: None,
) -> BuiltPlan:
    """Build and stream to `path`, which appears only when it is whole.

    Raises BuildError with TensorRT's messages, or naming the file that cannot be written.
    """
    trt = package.trt
    config = builder.create_builder_config()
    # fp32 means fp32: TensorFloat-32 keeps 10 bits of the mantissa.
    config.clear_flag(trt.BuilderFlag.TF32)
    # TensorRT for RTX can promise that a plan is fit for CUDA graphs: no allocation while it runs.
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if package.cross_builds:
        config.num_compute_capabilities = len(targets)
        for index, name in enumerate(targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, name.upper()), index)
    for profile in profiles:
        config.add_optimization_profile(_to_trt(builder, definition, profile))
    monitor = _monitor(trt, report)  # must live as long as the build
    config.progress_monitor = monitor
    first_message = len(log.lines)
    started = time.monotonic()
    with _partial_file(path) as (part, file):
        built = _build_into(package, builder, definition, config, file)
        if not built or part.stat().st_size == 0:
            raise BuildError(f"[{path.name}] expected a plan, got none: {log.errors()}")
    return BuiltPlan(
        path,
        path.stat().st_size,
        time.monotonic() - started,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        tuple(log.lines[first_message:]),
    )


def _to_trt(builder: Any, definition: Definition, profile: Profile) -> Any:
    made = builder.create_optimization_profile()
    for name, (_, shape) in definition.inputs.items():
        if not any(isinstance(size, str) for size in shape):
            continue
        sizes = [
            tuple(profile.dims[size][bound] if isinstance(size, str) else size for size in shape)
            for bound in range(3)
        ]
        made.set_shape(name, *sizes)
    return made


def _build_into(
    package: Package, builder: Any, definition: Definition, config: Any, file: Any
) -> bool:
    """Streams the plan to `file`, so that it is never whole in memory; False after a failure."""
    trt = package.trt
    failure: list[OSError] = []

    class Writer(trt.IStreamWriter):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)

        def write(self, data: Any) -> int:
            try:
                file.write(data)
            except OSError as error:  # a full disk; TensorRT only learns that nothing was written
                failure.append(error)
                return 0
            return len(data)

    built = bool(builder.build_serialized_network_to_stream(definition.network, config, Writer()))
    if failure:
        raise BuildError(f"[{file.name}] expected room for the plan, got: {failure[0]}")
    return built


@contextmanager
def _partial_file(path: Path) -> Iterator[tuple[Path, Any]]:
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield part, file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise BuildError(f"[{path}] expected a file that can be written, got: {error}") from None
    finally:
        part.unlink(missing_ok=True)
