"""Managed batch prediction jobs of Vertex AI: their life, from a command that may be started again and again."""
