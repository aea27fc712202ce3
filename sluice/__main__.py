"""`python -m sluice COMMAND`: the same as the command `sluice`."""

import sys

from sluice.pipelines.cli import main

if __name__ == "__main__":
    sys.exit(main())
