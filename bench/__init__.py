"""Benchmarks, run by hand: ratios to the bare model, client or write, measured side by side in one run.

Belongs here: one module per claim of docs/benchmarks.md. Does not belong here: tests; nothing in CI is timed.
"""
