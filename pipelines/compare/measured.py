"""Runs a command and writes what it took to a file: `python measured.py FILE COMMAND...`; exits as the command does.

It is a program of its own, and small, because Linux counts the memory of the process that starts another one as the
first memory of the other: behind a benchmark that has TensorFlow in memory, each command would seem to take as much.
"""

import json
import os
import sys
import time

# How a process starts: without `site`, which would bring in more than is used.
FLAGS = ("-S", "-E")


def main() -> None:
    """Writes seconds from start to exit, seconds of CPU, and peak resident memory in MB, as JSON."""
    path, *command = sys.argv[1:]
    started = time.perf_counter()
    process = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    secs = time.perf_counter() - started
    took = {"secs": secs, "cpu_secs": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss / 1024}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(took, file)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
