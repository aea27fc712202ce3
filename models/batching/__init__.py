"""How rows gather into calls: the scheduler, tickets, retries, limits."""
