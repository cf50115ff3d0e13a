"""A TensorRT plan from a Higgs checkpoint: not implemented, `python -m build_engine` says so."""
