"""Bytes to columns: one file per format, and the spec that names them."""
