"""Dockerfile, compose.yaml and examples/kubernetes say what the server and the package know."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from higgs_rt.cli.app import app
from higgs_rt.server import ServerSettings, create_app

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
KUBERNETES = ROOT / "examples" / "kubernetes" / "higgs-rt.yaml"


def options_of_serve() -> set[str]:
    command: Any = typer.main.get_command(app)
    return {name for one in command.commands["serve"].params for name in one.opts}


def container() -> dict[str, Any]:
    documents = {one["kind"]: one for one in yaml.safe_load_all(KUBERNETES.read_text())}
    found: dict[str, Any] = documents["Deployment"]["spec"]["template"]["spec"]
    return found


def test_kubernetes_files_fit_their_schemas() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for document in yaml.safe_load_all(KUBERNETES.read_text()):
        validate.validate(document, validate.latest_version(), strict=True)


def test_arguments_are_options_of_serve() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    commands = [one["command"] for one in compose["services"].values()]
    commands.append(container()["containers"][0]["args"])
    for command in commands:
        assert command[0] == "serve"
        named = {part for part in command if str(part).startswith("--")}
        assert named <= options_of_serve(), named


def test_probes_ask_what_the_server_answers(random_model: Path) -> None:
    from higgs_rt import Runtime

    with Runtime.load(random_model, threads=1) as runtime:
        paths = create_app(runtime, ServerSettings()).openapi()["paths"]
    pod = container()["containers"][0]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert pod[probe]["httpGet"]["path"] in paths
    checked = re.search(r"http://127\.0\.0\.1:8000(/\w+)", DOCKERFILE)
    assert checked is not None
    assert checked[1] in paths


def test_there_is_time_to_end_what_runs() -> None:
    pod = container()
    arguments = pod["containers"][0]["args"]
    drain = float(arguments[arguments.index("--drain-seconds") + 1])
    pause = float(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert drain + pause < pod["terminationGracePeriodSeconds"]
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    for service in compose["services"].values():
        command = service["command"]
        drain = float(command[command.index("--drain-seconds") + 1])
        assert drain < float(service["stop_grace_period"].removesuffix("s"))


def test_the_image_copies_what_the_build_needs() -> None:
    """Sources of the package and nothing that is ignored; not root; the package's own extras."""
    copied = set(re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE))
    names = {name for line in copied for name in line.split()}
    ignore = (ROOT / ".dockerignore").read_text().split()
    assert {f"!{name}" for name in names} <= set(ignore)
    for name in names:
        assert (ROOT / name).exists(), name
    assert re.search(r"^USER 10001", DOCKERFILE, re.MULTILINE)
    assert container()["securityContext"]["runAsUser"] == 10001
    extras = re.findall(r"^ARG EXTRAS=(\S+)", DOCKERFILE, re.MULTILINE)
    project = (ROOT / "pyproject.toml").read_text()
    for extra in extras[0].split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)
