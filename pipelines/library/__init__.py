"""Readers and writers for pipelines of one's own: they check and decide at launch what a job of `sluice batch` does."""
