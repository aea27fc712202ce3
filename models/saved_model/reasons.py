"""What TensorFlow says is wrong, in a line, whether it says so here or at a server."""

# Lines of a TensorFlow error that say where in the graph it was, and not what.
_WHERE = ("Graph execution error", "Detected at node", "[[")


def reason(text: str) -> str:
    """Returns the line of a TensorFlow error that a user can act on, without the graph's stack of ops; "" if none."""
    lines = [line.strip() for line in text.splitlines()]
    begin = max((number for number, line in enumerate(lines, 1) if line.startswith("Node: ")), default=0)
    told = [line for line in lines[begin:] if line and not line.startswith(_WHERE)]
    return told[0] if told else ""
