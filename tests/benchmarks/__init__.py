"""Benchmarks: `python -m tests.benchmarks`. One file a group; `rounds` measures and prints."""
