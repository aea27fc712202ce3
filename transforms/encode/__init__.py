"""Columns to bytes: a file for each format, the spec, and the table from each format to its encoder."""
