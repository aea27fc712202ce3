"""`python -m sluice COMMAND`: the same as the command `sluice`."""

from sluice.pipelines.cli import run_process

if __name__ == "__main__":
    run_process()
