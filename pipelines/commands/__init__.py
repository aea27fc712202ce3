"""The commands beside batch and streaming."""
