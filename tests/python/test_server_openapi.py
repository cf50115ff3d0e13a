"""schemathesis: requests made from the OpenAPI document, and wrong ones; no server error."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from higgs_rt import LengthStopWarning, Runtime
from higgs_rt.server import ServerSettings
from serving import served

KNOWN = {
    **{"model": "tts-1", "voice": None, "speakers": None, "ref_audio": None, "ref_text": None},
    **{"input": "So it is.", "messages": [{"role": "user", "content": "Hi."}], "language": "en"},
    **{"audio": {"format": "mp3"}, "instructions": None, "top_k": 5, "max_seconds": 1},
}
EXAMPLES = 15  # of each operation


@pytest.fixture(scope="module")
def document(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    voices = tmp_path_factory.mktemp("voices")
    with (
        Runtime.load(random_model, threads=1, max_batch=8, max_queue=8, voices=voices) as runtime,
        served(runtime, ServerSettings(max_input_chars=300)) as url,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", LengthStopWarning)
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


def checks() -> list[Any]:
    names = ("status_code_conformance", "content_type_conformance", "response_schema_conformance")
    known = schemathesis.checks.CHECKS
    return [schemathesis.checks.not_a_server_error, *known.get_by_names(names)]


@pytest.mark.parametrize("wrong", [False, True])
def test_the_document_is_kept(document: Any, wrong: bool) -> None:
    mode = schemathesis.GenerationMode.NEGATIVE if wrong else schemathesis.GenerationMode.POSITIVE
    operations = [result.ok() for result in document.get_all_operations()]
    assert len(operations) >= 10
    statuses: dict[str, set[int]] = {}
    for operation in operations:
        with contextlib.suppress(*([Unsatisfiable] if wrong else [])):  # it may have no input
            statuses[operation.label] = run(operation.as_strategy(generation_mode=mode))
    for label in ("POST /v1/audio/speech", "POST /v1/chat/completions"):
        assert (400 if wrong else 200) in statuses[label], statuses


def run(strategy: Any) -> set[int]:
    statuses: set[int] = set()
    count = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def examples(case: Any) -> None:
        nonlocal count
        count += 1
        if count % 2 and isinstance(case.body, dict):  # else hardly one is known, and speaks
            for field, value in KNOWN.items():
                if field in case.body:
                    case.body[field] = value
        response = case.call(timeout=60)
        statuses.add(response.status_code)
        case.validate_response(response, checks=checks())

    examples()
    return statuses
