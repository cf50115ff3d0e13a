"""The page at `/`."""

from __future__ import annotations

from pathlib import Path

# The page is one file, and talks to its own server only.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def page() -> str:
    """Its HTML."""
    return Path(__file__).with_name("playground.html").read_text(encoding="utf-8")
