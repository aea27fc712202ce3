"""Writes deploy/requirements-*.txt: what pip installs into images, with the hash of each file.

pip resolves what setup.py declares within constraints.txt, against the index that it is configured with; nothing is
installed. Run `python tools/make_requirements.py` on Linux (x86_64) with Python 3.11 after a change of either; a test
compares the versions. All packages are downloaded, CUDA's too: it takes minutes and 4 GB.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
HEADER = "# Made by tools/make_requirements.py, for Python 3.11 on Linux, x86_64. deploy/Dockerfile installs it.\n"
# What builds the packages that are not wheels, ours among them.
BUILD = "requirements-build.txt"
TOOLS = ("setuptools", "wheel")
VARIANTS = {"requirements-cpu.txt": (".",), "requirements-gpu.txt": (".", "tensorflow[and-cuda]")}


def resolved(*wanted: str) -> dict[str, str]:
    """Returns what pip would install into an empty environment: the lines of a requirements file, by name."""
    with tempfile.TemporaryDirectory() as directory:
        report = pathlib.Path(directory) / "report.json"
        flags = ["--dry-run", "--ignore-installed", "--quiet", f"--report={report}", "--constraint=constraints.txt"]
        subprocess.run([sys.executable, "-m", "pip", "install", *flags, *wanted], cwd=ROOT, check=True)
        return lines_of(json.loads(report.read_text()))


def lines_of(report: dict) -> dict[str, str]:
    """Returns the lines for what a report of pip lists, except for Sluice itself."""
    lines = {}
    for each in report["install"]:
        name, version = each["metadata"]["name"], each["metadata"]["version"]
        if name != "sluice":
            digest = each["download_info"]["archive_info"]["hashes"]["sha256"]
            lines[name] = f"{name}=={version} --hash=sha256:{digest}\n"
    return lines


def write(file: str, lines: dict[str, str]) -> None:
    text = "".join(lines[name] for name in sorted(lines, key=str.lower))
    (ROOT / "deploy" / file).write_text(HEADER + text)


def main() -> None:
    for file, wanted in VARIANTS.items():
        lines = resolved(*wanted)
        write(file, lines)
        write(BUILD, {name: line for name, line in lines.items() if name in TOOLS})


if __name__ == "__main__":
    main()
