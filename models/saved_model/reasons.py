"""Finds the one useful line of TensorFlow's error messages, of this process or of a server."""

# Lines that say where in the graph the error was, and not what it was.
_WHERE = ("Graph execution error", "Detected at node", "[[")


def reason(text: str) -> str:
    """Returns the line of a TensorFlow error that a user can act on; "" if it has none."""
    lines = [line.strip() for line in text.splitlines()]
    begin = max((number for number, line in enumerate(lines, 1) if line.startswith("Node: ")), default=0)
    told = [line for line in lines[begin:] if line and not line.startswith(_WHERE)]
    return told[0] if told else ""
