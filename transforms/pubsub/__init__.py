"""Pub/Sub messages in and out: the source, the decoding of payloads, the sinks, and the replay of failures."""
