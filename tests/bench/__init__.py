"""Benchmarks, run by hand: `python -m tests.bench` runs all, `python -m tests.bench.fanout` one. None is a test."""
