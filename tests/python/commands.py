"""The command line in the process of the tests."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from higgs_rt.cli.app import app


def run(*arguments: object, stdin: str | None = None) -> Result:
    """What `higgs-rt` answers."""
    return CliRunner().invoke(app, [str(one) for one in arguments], input=stdin)
