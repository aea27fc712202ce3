"""Edges and commands: flags, launch checks, the graph and its entry points. No logic of its own."""
