"""Benchmarks for asv: one class per verb, each timing one public call."""
