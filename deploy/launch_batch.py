"""Launches a job from a batch Flex Template: runs `sluice batch` with the template's parameters as flags."""

import sys

from sluice.pipelines.cli import main

if __name__ == "__main__":
    sys.exit(main(["batch", *sys.argv[1:]]))
