"""Launches a job from a streaming Flex Template: runs `sluice streaming` with the template's parameters as flags."""

import sys

from sluice.pipelines.cli import main

if __name__ == "__main__":
    sys.exit(main(["streaming", *sys.argv[1:]]))
