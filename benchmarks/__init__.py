"""Benchmarks against a local mongod: one file per question.

Run one with ``python -m benchmarks.find_one``. Peers run interleaved, each
measurement in a fresh process; what counts is the ratio within one run.
"""
