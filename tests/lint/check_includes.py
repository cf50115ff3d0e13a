"""Include lint: who may include whom in csrc (docs/architecture.md), read off the #include lines.

Exits non-zero and names file, line and folder for every include that the table does not list.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"

# folder -> folders of csrc it may include besides itself. Longest matching prefix wins.
ALLOWED: dict[str, set[str]] = {
    "include": set(),
    "core": {"include"},
    "io": {"include", "core"},
    "text": {"include", "core", "io"},
    "batch": {"include", "core"},
    "kv": {"include", "core"},
    "ops": {"include", "core", "batch", "kv"},
    "sampler": {"include", "core"},
    "model": {"include", "core", "io", "batch", "kv", "ops"},
    "engine": {"include", "core", "batch", "kv", "ops"},
    "engine/native": {"include", "core", "io", "batch", "kv", "ops", "model", "engine"},
    "engine/tensorrt": {"include", "core", "io", "batch", "kv", "ops", "model", "engine"},
    "executor": {"include", "core", "batch", "kv", "sampler"},
    "api": {
        "include", "core", "io", "text", "batch", "kv", "ops", "model", "engine", "sampler",
        "executor",
    },
    "bindings": {"include", "api"},
    "bench": {"include", "core", "io", "batch", "kv", "ops", "model", "engine", "sampler", "api"},
}  # fmt: skip
# Single headers that a folder may include although it may not include their folder.
ALLOWED_HEADERS: dict[str, set[str]] = {
    "executor": {"engine/engine.h"},
    "engine": {"engine/native/native_engine.h", "engine/tensorrt/tensorrt_engine.h"},
    "engine/tensorrt": {"engine/native/check_batch.h", "engine/native/step_staging.h"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')
SUFFIXES = {".h", ".cpp", ".c", ".cu", ".cuh", ".inl"}


def folder_of(path: str) -> str:
    """Longest key of ALLOWED that is a prefix of `path` (relative to csrc)."""
    parts = path.split("/")[:-1]
    for length in range(len(parts), 0, -1):
        name = "/".join(parts[:length])
        if name in ALLOWED:
            return name
    return ""


def check_file(path: Path) -> list[str]:
    """Faults of one file, each `file:line: message`."""
    relative = path.relative_to(CSRC).as_posix()
    source = folder_of(relative)
    if not source:
        return [f"csrc/{relative}:1: folder is not in the table of tests/lint/check_includes.py"]
    faults = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        match = INCLUDE.match(line)
        if not match:
            continue
        header = match.group(1)
        in_public = (CSRC / "include" / header).is_file()
        if not in_public and not (CSRC / header).is_file():
            faults.append(f'csrc/{relative}:{number}: "{header}" is not a path from csrc')
            continue
        target = "include" if in_public else folder_of(header)
        if target == source or target in ALLOWED[source]:
            continue
        if header in ALLOWED_HEADERS.get(source, set()):
            continue
        faults.append(f'csrc/{relative}:{number}: {source} may not include "{header}" ({target})')
    return faults


def main() -> int:
    """Checks every source file of csrc."""
    files = sorted(path for path in CSRC.rglob("*") if path.suffix in SUFFIXES)
    faults = [fault for path in files for fault in check_file(path)]
    print("\n".join(faults) or f"include lint: {len(files)} files, no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
