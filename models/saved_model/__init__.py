"""A SavedModel in this process: its loader, versions, and the reader of its signatures."""
