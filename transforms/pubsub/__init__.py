"""Pub/Sub as the source and the sink of rows."""
