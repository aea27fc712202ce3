"""Measures the ways to serve a model, and says which one fits: `sluice compare`, and the code that benchmarks share."""
