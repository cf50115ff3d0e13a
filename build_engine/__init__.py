"""Builds a TensorRT plan from a Higgs checkpoint (not implemented yet: see docs/architecture.md)."""
