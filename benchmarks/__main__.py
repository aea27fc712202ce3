"""All benchmarks, one after the other: `python -m benchmarks [NAME ...]`, which `make bench` runs.

Each writes its page of results, and the pages of docs get their tables. Nothing else may run on the machine. The first
that fails ends it; give the names of the others to go on.
"""

import argparse
import subprocess
import sys

from benchmarks import quote

NAMES = ("batch", "lock", "serving", "streaming", "bigquery", "compare")


def main() -> int:
    """Runs them; returns the exit code of the first that fails, or 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="default: all")
    for name in parser.parse_args().names or NAMES:
        print(f"\n== {name}", flush=True)
        code = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode
        if code:
            return code
    quote.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
