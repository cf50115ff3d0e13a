"""`python -m build_engine`."""

from build_engine.cli import app

if __name__ == "__main__":
    app(prog_name="python -m build_engine")
