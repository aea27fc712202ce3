"""The commands of the docs, as users paste them."""

import re
import shlex
import subprocess

from sluice.pipelines.cli import main
from tests.support.paths import ROOT


def fence(name: str, words: str) -> str:
    """Returns the block of commands of a page that holds these words."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / name).read_text(), re.DOTALL | re.MULTILINE)
    (found,) = [text for language, text in blocks if not language and words in text]
    return found


def paste(line: str) -> None:
    """Runs a command in the current directory: `sluice` in this process, others in a shell."""
    words = shlex.split(line, comments=True)
    if words[:1] == ["sluice"]:
        assert main(words[1:]) == 0, line
    else:
        subprocess.run(line, shell=True, check=True)
