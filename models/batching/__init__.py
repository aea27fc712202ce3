"""Gathers rows into calls: the scheduler, its tickets, retries and limits."""
