"""The command line, `higgs-rt` (docs/cli.md)."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of `higgs-rt`. Exit status: 0, 1 error, 2 usage error, 130 Ctrl-C."""
    try:
        # Imported here so that Ctrl-C while libraries load is no traceback either.
        from higgs_rt.cli.app import app

        app()
    except SystemExit:  # the commands report by themselves
        raise
    except BaseException as error:
        if not was_interrupted(error):
            raise
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind `error`: an import turns it into an error of its own at times."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
