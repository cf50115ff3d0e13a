"""The page at / in headless Chromium: it lists voices, speaks, plays, and shows its times."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from higgs_rt import Runtime
from higgs_rt.audio import pcm16
from higgs_rt.server import ServerSettings
from serving import served

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--autoplay-policy=no-user-gesture-required",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
            ],
        )
        yield browser.new_page()
        browser.close()


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with Runtime.load(threads=2, voices=tmp_path_factory.mktemp("voices")) as loaded:
        yield loaded


def wait(page: Any, condition: str, seconds: float = 40) -> None:
    """The driver's own wait needs eval, which the page's policy forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"{condition}: {page.inner_text('#timing')}"
        page.wait_for_timeout(50)


def test_the_page_speaks_and_plays(page: Any, runtime: Runtime) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    with served(runtime) as url:
        page.goto(url)
        wait(page, "document.getElementById('voice').options.length === 5")
        page.fill("#text", "The sun rises in the east.")
        page.select_option("#voice", "slt")
        page.fill("#seed", "3")
        page.click("#speak")
        wait(page, "document.body.dataset.state")
        assert page.evaluate("document.body.dataset.state") == "played", page.inner_text("#timing")
        expected = runtime.speak("The sun rises in the east.", voice="slt", seed=3)
        assert int(page.evaluate("document.body.dataset.samples")) == len(expected.samples)
        heard = np.array(page.evaluate("heard.flatMap((part) => Array.from(part))"))
        assert np.abs(heard - pcm16(expected.samples)).max() <= 1
        timing = page.inner_text("#timing")
        for part in ("ended: stop", "seed 3", "first audio after", "0 gaps"):
            assert part in timing
        # What was heard can be heard again.
        wait(page, "document.getElementById('player').duration > 0.5")
        page.evaluate("document.getElementById('player').play()")
        wait(page, "document.getElementById('player').currentTime > 0.3")
    assert errors == []


def test_the_page_records_a_voice(page: Any, runtime: Runtime) -> None:
    with served(runtime) as url:
        page.goto(url)
        page.click("#record")
        page.wait_for_timeout(1200)
        page.click("#record")
        wait(page, "document.getElementById('voice').options.length === 6")
        page.fill("#words", "Beep.")
        page.fill("#text", "Hello.")
        page.click("#speak")
        wait(page, "document.body.dataset.state")
        assert page.evaluate("document.body.dataset.state") == "played", page.inner_text("#timing")


def test_the_page_shows_errors_and_takes_a_key(page: Any, runtime: Runtime) -> None:
    with served(runtime, ServerSettings(api_keys=("secret",))) as url:
        page.goto(url)
        page.click("#speak")
        wait(page, "document.body.dataset.state === 'failed'")
        assert "API key" in page.inner_text("#timing")
        page.fill("#key", "secret")
        page.dispatch_event("#key", "change")
        wait(page, "document.getElementById('voice').options.length === 5")
