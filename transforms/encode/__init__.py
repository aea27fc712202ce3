"""Columns to bytes: one file per format, and the spec that names them."""
