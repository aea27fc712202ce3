"""What each page of results begins with: what wrote it, of which commit, on which machine, and when."""

import datetime
import os
import platform
import subprocess

from benchmarks.checkouts import ROOT
from sluice.pipelines.report.machine import processor


def written_by(name: str) -> str:
    """Returns "Written by ..." up to the version of Python, without a full stop.

    Args:
      name: of the module of `benchmarks`, and of the target of make after `bench-`.
    """
    today = datetime.datetime.now(datetime.UTC).date()
    return (
        f"Written by `make bench-{name}` (`python -m benchmarks.{name}`) on {today:%-d %B %Y}, at commit {commit()}, "
        f"on {len(os.sched_getaffinity(0))} cores ({processor()}), Python {platform.python_version()}"
    )


def commit(path: str = ROOT) -> str:
    """Returns the commit of a checkout, and whether its files are others; "unknown" outside of git."""
    try:
        head = _git(path, "rev-parse", "--short=10", "HEAD")
        changed = _git(path, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/*.md")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head} with changes" if changed else head


def _git(path: str, *words: str) -> str:
    done = subprocess.run(["git", "-C", path, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()
