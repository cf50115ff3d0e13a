"""Model directories: finding their files, and random checkpoints for tests and benchmarks."""
