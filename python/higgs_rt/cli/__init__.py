"""The command line, `higgs-rt` (docs/cli.md)."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of `higgs-rt`. Exit status: 0, 1 error, 2 usage error, 130 Ctrl-C."""
    try:
        # Imported here so that Ctrl-C while libraries load is no traceback either.
        from higgs_rt.cli.app import app

        app()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
