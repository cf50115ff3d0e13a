"""What tests/gpu/sanitize.py makes of compute-sanitizer's reports; the tool itself is played."""

from __future__ import annotations

import importlib
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
NO_HAZARD = "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"
CLEAN = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"
RACE = """========= COMPUTE-SANITIZER
========= Error: Race reported between Write access at higgs_rt::advance_rows(int)+0x540
=========     and Read access at higgs_rt::advance_rows(int)+0x790 [128 hazards]
=========
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""


ONE_KERNEL = "cuda: a decode step in one kernel is the step in stages"
SAME_BITS = "cuda: a row of a decode step in one kernel has the same bits in every step"
PASSED = "1 passed, 0 failed, 0 skipped"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests/gpu"))


@pytest.fixture
def sanitize(folder: None) -> ModuleType:
    return importlib.import_module("sanitize")


@pytest.fixture
def plan(folder: None) -> ModuleType:
    return importlib.import_module("sanitize_cases")


def play(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: str,
    result: str,
    version: str = "2026.4.0.0",
) -> Path:
    """A build with a case in ops and three in model, and a compute-sanitizer in PATH that writes
    `log`, and to `calls` what it is told; each program has run the kernel _Z3onev."""
    tool = tmp_path / "bin" / "compute-sanitizer"
    tool.parent.mkdir()
    (tmp_path / "log").write_text(log)
    tool.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = --version ]; then echo Version {version}; exit; fi\n'
        f'echo "$HIGGS_RT_TEST_FEW $*" >> "{tmp_path}/calls"\n'
        'while [ "$1" != --log-file ]; do shift; done\n'
        f'cp "{tmp_path}/log" "$2"\nprintf "%s\\n" "{result}"\n'
        'printf "1 _Z3onev\\n0 _Z3twov\\n" > "$HIGGS_RT_TEST_KERNELS"\n'
        '[ -n "$HIGGS_RT_TEST_FEW" ]\n'
    )
    programs = tmp_path / "build" / "tests" / "cpp"
    programs.mkdir(parents=True)
    (programs / "test_ops").write_text("#!/bin/sh\necho 'cuda linear is right'\n")
    names = "\n".join([ONE_KERNEL, SAME_BITS, "cuda codec decoder: agrees"])
    (programs / "test_model").write_text(f"#!/bin/sh\necho '{names}'\n")
    for path in (tool, programs / "test_ops", programs / "test_model"):
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
    hangs = f'sleep 60 &\necho $! > "{tmp_path}/child"\nwait\n'
    tool.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit\n{hangs}')
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
        assert script.stdout.readline().startswith("compute-sanitizer 2026")
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


def test_no_kernel_of_ours_is_excluded(folder: None) -> None:
    """The names that stand for cuBLASLt are in none of this project's kernels."""
    names: list[str] = []
    for path in [*ROOT.glob("csrc/**/*.cu"), *ROOT.glob("csrc/**/*.cuh")]:
        text = re.sub(r"__launch_bounds__\((?:[^()]|\([^()]*\))*\)", "", path.read_text())
        names += re.findall(r"__global__\s+(?:static\s+)?void\s+(\w+)", text)
    assert len(names) >= 20
    cublas = importlib.import_module("sanitize_report").CUBLAS
    assert not [name for name in names if any(part in name for part in cublas)]


def test_cases_that_keep_the_gpu_come_last_the_longest_first(plan: ModuleType) -> None:
    names = [
        ONE_KERNEL,
        "cuda codec decoder: any parts in any batches give the bits of the whole",
        "cuda: a decode step with norms within its products is the step in stages",
        "cuda codec decoder: wrong batches are refused, and the next one works",
    ]
    weights = [plan.Task("racecheck", "model", name).weight for name in names]
    assert weights == sorted(set(weights), reverse=True)
    assert weights[-1] == 0
    assert plan.Task("memcheck", "model", names[0]).weight == 0


def test_what_racecheck_treats_by_name_exists(plan: ModuleType) -> None:
    """A case or a kernel that is called otherwise one day must not drop out silently."""
    names = {
        folder: re.findall(r'TEST\(\s*"([^"]*cuda[^"]*)"', "".join(texts))
        for folder in plan.FOLDERS
        if (texts := [path.read_text() for path in ROOT.glob(f"tests/cpp/{folder}/test_*.cpp")])
    }
    for folder, part in [*plan.WATCHED, *plan.LEFT_OUT, *plan.HEAVY, *plan.NEWER, *plan.ONLY_NEWER]:
        assert [name for name in names[folder] if part in name]
    kernels = "".join(path.read_text() for path in ROOT.glob("csrc/ops/cuda/kernels/*.cu*"))
    assert all(re.search(rf" {kernel}\w*\(", kernels) for kernel in plan.WATCHED.values())
    # What is left out is about kernels that another case is watched for.
    every = [plan.Task("racecheck", one, name) for one in names for name in names[one]]
    left_out = [task for task in every if task.is_one_of(plan.LEFT_OUT)]
    assert len(left_out) == 2
    assert {task.watched for task in every if task.watched} == set(plan.WATCHED.values())
    assert not [task for task in left_out if task.watched or task.weight]
    assert not plan.Task("initcheck", "model", left_out[0].case).is_one_of(plan.LEFT_OUT)


@pytest.mark.parametrize("kernel", ["persist_kernel", "another_kernel"])
def test_racecheck_tells_what_it_did_not_look_at(
    sanitize: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kernel: str,
) -> None:
    build = play(tmp_path, monkeypatch, CLEAN.replace("ERROR SUMMARY: 0 errors", NO_HAZARD), PASSED)
    tool = tmp_path / "bin" / "compute-sanitizer"
    tool.write_text(tool.read_text().replace("_Z3twov", f"_Z3twov\\n1 _Z14{kernel}v"))
    code = sanitize.main([str(build), "--folders", "api,model", "--tools", "racecheck"])
    out = capsys.readouterr().out
    calls = (tmp_path / "calls").read_text().splitlines()
    watched = [call for call in calls if ONE_KERNEL in call]
    assert len(calls) == 2
    assert all(call.startswith("fewest ") and "--racecheck-num-workers" in call for call in calls)
    assert [call for call in calls if "--kernel-name kns=persist_kernel" in call] == watched
    assert not [call for call in calls if SAME_BITS in call]
    assert out.startswith("compute-sanitizer 2026.4.0.0\nok")
    assert f"left out: racecheck model «{SAME_BITS}»" in out
    assert f"watched no kernel but persist_kernel: racecheck model «{ONE_KERNEL}»" in out
    # A filter that fits nothing would find nothing in anything.
    assert code == (kernel != "persist_kernel")
    assert ("expected persist_kernel to run, got no kernel" in out) == (code == 1)
    # The codec's case saw _Z3onev, the one-kernel step's only what it was watched for.
    assert "racecheck: 2 of 3 kernels ran" in out


def test_a_case_runs_under_a_newer_tool_or_not_at_all(
    sanitize: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = CLEAN.replace("ERROR SUMMARY: 0 errors", NO_HAZARD)
    build = play(tmp_path, monkeypatch, log, PASSED, "2025.3.1.0")
    usual = tmp_path / "bin" / "compute-sanitizer"
    usual.write_text(usual.read_text().replace("_Z3twov", "_Z3twov\\n1 _Z14persist_kernelv"))
    wanted = [str(build), "--folders", "model", "--tools", "racecheck"]
    assert sanitize.main(wanted) == 1
    assert "expected a compute-sanitizer of 2026 or later" in capsys.readouterr().out
    assert not [
        call for call in (tmp_path / "calls").read_text().splitlines() if ONE_KERNEL in call
    ]
    package = tmp_path / "site" / "nvidia" / "cu13" / "compute-sanitizer"
    package.mkdir(parents=True)
    newer = package / "compute-sanitizer"
    newer.write_text(usual.read_text().replace("2025.3.1.0", "2026.4.0.0").replace("calls", "new"))
    newer.chmod(usual.stat().st_mode)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert sanitize.main(wanted) == 0
    assert capsys.readouterr().out.startswith(
        "compute-sanitizer 2025.3.1.0\ncompute-sanitizer 2026"
    )
    assert [ONE_KERNEL in call for call in (tmp_path / "new").read_text().splitlines()] == [True]
    assert sanitize.main([*wanted, "--newer", str(usual)]) == 1
    plan, tools = (importlib.import_module(name) for name in ("sanitize_cases", "sanitize_tools"))
    engine = plan.Task("racecheck", "engine", "engine: cuda adapters in one batch")
    assert tools.Tools("old", None).of(engine) is None
    assert tools.Tools("old", "new").of(engine) == "new"
    assert tools.Tools("old", None).of(plan.Task("memcheck", "engine", engine.case)) == "old"


def test_what_ended_clean_runs_no_more_and_stays_in_the_table(
    sanitize: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    build = play(tmp_path, monkeypatch, CLEAN, PASSED)
    calls, file = tmp_path / "calls", tmp_path / "results"
    wanted = [str(build), "--results", str(file), "--tools", "initcheck", "--folders"]
    assert sanitize.main([*wanted, "ops"]) == 0
    assert sanitize.main([*wanted, "ops,model", "--cases", "same bits"]) == 0
    with pytest.raises(SystemExit, match="expected cases with «none»"):
        sanitize.main([*wanted, "ops,model", "--cases", "none"])
    first = len(calls.read_text().splitlines())
    assert first == 2
    capsys.readouterr()
    assert sanitize.main([*wanted, "ops"]) == 0
    out = capsys.readouterr().out
    assert len(calls.read_text().splitlines()) == first
    assert "2 runs of earlier calls ended clean" in out
    assert "initcheck  ops          1     1" in out
    assert "initcheck: 1 of 2 kernels ran" in out
    # What had faults runs again; results of other sources do not count.
    assert sanitize.main([*wanted, "ops,model"]) == 1
    assert len(calls.read_text().splitlines()) > first
    file.write_text(file.read_text().replace('"sources": "', '"sources": "0'))
    with pytest.raises(SystemExit, match="expected results of these sources"):
        sanitize.main([*wanted, "ops"])
