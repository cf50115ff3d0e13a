"""What tests/gpu/sanitize.py makes of compute-sanitizer's reports; the tool itself is played."""

from __future__ import annotations

import importlib.util
import re
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from waiting import until

ROOT = Path(__file__).parents[2]

OURS = """========= COMPUTE-SANITIZER
========= Uninitialized __global__ memory read of size 4 bytes
=========     at higgs_rt::rms_norm_kernel(const float *)+0x70
=========     by thread (16,0,0) in block (0,0,0)
=========         Host Frame: cublasLtMatmul [0xf93310] in libcublasLt.so.13
=========
========= ERROR SUMMARY: 1 error
"""
CUBLAS = OURS.replace("higgs_rt::rms_norm_kernel(const float *)", "nvjet_tst_64x8")
NOT_READY = """========= COMPUTE-SANITIZER
========= Program hit cudaErrorNotReady (error 600) due to "device not ready" on CUDA API call to cudaEventElapsedTime.
=========     Saved host backtrace up to driver entry point at error
========= ERROR SUMMARY: 1 error
"""  # noqa: E501
CLEAN = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"
RACE = """========= COMPUTE-SANITIZER
========= Error: Race reported between Write access at higgs_rt::advance_rows(int)+0x540
=========     and Read access at higgs_rt::advance_rows(int)+0x790 [128 hazards]
=========
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""


@pytest.fixture(scope="module")
def sanitize() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sanitize", ROOT / "tests/gpu/sanitize.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sanitize"] = module
    spec.loader.exec_module(module)
    return module


def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str, result: str) -> Path:
    """A build with one case a folder, and a compute-sanitizer in PATH that writes `log`."""
    tool = tmp_path / "bin" / "compute-sanitizer"
    tool.parent.mkdir()
    (tmp_path / "log").write_text(log)
    tool.write_text(
        "#!/bin/sh\n"
        'while [ "$1" != --log-file ]; do shift; done\n'
        f'cp "{tmp_path}/log" "$2"\nprintf "%s\\n" "{result}"\n'
        'printf "1 _Z3onev\\n0 _Z3twov\\n" > "$HIGGS_RT_TEST_KERNELS"\n'
        '[ -n "$HIGGS_RT_TEST_FEW" ]\n'
    )
    binary = tmp_path / "build" / "tests" / "cpp" / "test_ops"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\necho 'cuda linear is right'\n")
    for path in (tool, binary):
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    return tmp_path / "build"


@pytest.mark.parametrize(
    ("log", "result", "fault"),
    [
        (CLEAN, "1 passed, 0 failed, 0 skipped", None),
        (CUBLAS, "1 passed, 0 failed, 0 skipped", None),
        (NOT_READY, "1 passed, 0 failed, 0 skipped", "cudaErrorNotReady"),
        (OURS, "1 passed, 0 failed, 0 skipped", "rms_norm_kernel"),
        (RACE, "1 passed, 0 failed, 0 skipped", "Race reported"),
        (CLEAN, "0 passed, 0 failed, 1 skipped", "1 skipped"),
        (CLEAN, "0 passed, 1 failed, 0 skipped", "1 failed"),
        (CLEAN, "", "no result"),
        ("", "1 passed, 0 failed, 0 skipped", "no summary"),
        (CUBLAS.replace("1 error", "7 errors"), "1 passed, 0 failed, 0 skipped", "only 1 reports"),
        (OURS + CUBLAS, "1 passed, 0 failed, 0 skipped", "rms_norm_kernel"),
    ],
)
def test_only_reports_about_cublas_pass(
    sanitize: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    log: str,
    result: str,
    fault: str | None,
) -> None:
    build = play(tmp_path, monkeypatch, log, result)
    code = sanitize.main([str(build), "--folders", "ops", "--tools", "initcheck"])
    out = capsys.readouterr().out
    assert code == (fault is not None)
    if fault is None:
        assert "FAIL" not in out
        assert "initcheck: 1 of 2 kernels ran\n  not " in out
        counted = next(
            line for line in out.splitlines() if line.startswith("initcheck  ops")
        ).split()
        assert counted[2:5] == ["1", "1", "1" if log == CUBLAS else "0"]
    else:
        assert "FAIL" in out
        assert fault in out


def test_a_case_that_does_not_end_is_a_fault_and_ends_with_its_child(
    sanitize: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = play(tmp_path, monkeypatch, CLEAN, "1 passed, 0 failed, 0 skipped")
    tool = tmp_path / "bin" / "compute-sanitizer"
    tool.write_text(f'#!/bin/sh\nsleep 60 &\necho $! > "{tmp_path}/child"\nwait\n')
    few = ["--folders", "ops", "--tools", "memcheck", "--case-seconds", "1"]
    begin = time.monotonic()
    assert sanitize.main([str(build), *few]) == 1
    assert time.monotonic() - begin < 20
    child = int((tmp_path / "child").read_text())
    until(lambda: not runs(child))


def test_what_has_ended_is_told_when_the_script_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = play(tmp_path, monkeypatch, CLEAN, "1 passed, 0 failed, 0 skipped")
    tool = tmp_path / "bin" / "compute-sanitizer"
    quick = tool.read_text().removeprefix("#!/bin/sh\n")
    hangs = f'case "$*" in *memcheck*) touch "{tmp_path}/waits"; sleep 60;; esac\n'
    tool.write_text("#!/bin/sh\n" + hangs + quick)
    command = [sys.executable, str(ROOT / "tests/gpu/sanitize.py"), str(build), "--folders", "ops"]
    with subprocess.Popen(
        [*command, "--tools", "initcheck,memcheck"], stdout=subprocess.PIPE, text=True
    ) as script:
        assert script.stdout is not None
        first = script.stdout.readline()
        until(lambda: (tmp_path / "waits").exists())
        script.terminate()
        rest = script.stdout.read()
        assert script.wait() == 1
    assert first.startswith("ok ")
    assert "initcheck" in first
    assert "FAIL" in rest
    assert "2 runs in" in rest


def runs(process: int) -> bool:
    """Whether it runs; one that has ended and was not fetched yet does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_no_kernel_of_ours_is_excluded(sanitize: ModuleType) -> None:
    """The names that stand for cuBLASLt are in none of this project's kernels."""
    names: list[str] = []
    for path in [*ROOT.glob("csrc/**/*.cu"), *ROOT.glob("csrc/**/*.cuh")]:
        text = re.sub(r"__launch_bounds__\((?:[^()]|\([^()]*\))*\)", "", path.read_text())
        names += re.findall(r"__global__\s+(?:static\s+)?void\s+(\w+)", text)
    assert len(names) >= 20
    assert not [name for name in names if any(part in name for part in sanitize.CUBLAS)]


def test_cases_that_keep_the_gpu_come_last(sanitize: ModuleType) -> None:
    names = [
        "cuda: a decode step in one kernel is the step in stages",
        "cuda: thousands of decode steps with norms within",
        "cuda codec decoder: any parts in any batches give the bits of the whole",
        "cuda codec decoder: wrong batches are refused, and the next one works",
    ]
    weights = [sanitize.weight(sanitize.Task("racecheck", "model", name)) for name in names]
    assert weights == sorted(set(weights), reverse=True)
    assert weights[-1] == 0
    assert sanitize.weight(sanitize.Task("memcheck", "model", names[0])) == 0
