"""The replay of failures: read as they were written, and fed back to the topic that a streaming job reads."""
