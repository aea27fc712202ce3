"""Rows on their way through a managed batch prediction job: instances for it, and its answers joined to the rows."""
