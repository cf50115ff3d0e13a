"""`python -m build_engine`: refuses, because no TensorRT builder exists in this version."""

import sys


def main() -> int:
    """Says what is missing and what to use instead; exit status 1."""
    print(
        "[build_engine] expected a build with a TensorRT builder, got higgs_rt without one: this "
        "version runs checkpoints directly with the native engine (higgs-rt speak --model DIR)",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
