"""`python -m higgs_rt` is `higgs-rt`."""

from higgs_rt.cli import main

if __name__ == "__main__":
    main()
