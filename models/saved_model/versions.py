"""Finds the versions of a SavedModel: the numbered directories under a base path, and whether each is complete.

The layout is TF Serving's: BASE/123/saved_model.pb. A base path that itself has a saved_model.pb has no version. As in
TF Serving, a model may lack asset files: the graph may not read them, and if it does, TensorFlow does not load it.
"""

import collections
import dataclasses
import functools
import re
from typing import Any

from sluice.models.errors import ModelNotFound
from sluice.models.files import ModelFiles
from sluice.models.protos import message_class
from sluice.models.saved_model.not_a_model import explain

_SAVED_MODEL = "saved_model.pb"
_SHARD = re.compile(r"variables\.data-(\d+)-of-(\d+)$")
_ASSETS_KEY = "saved_model_assets"
_VARIABLE_OPS = {"VarHandleOp", "VariableV2", "Variable"}


@dataclasses.dataclass(frozen=True)
class Version:
    """The directory of one SavedModel, and its version number; None if the directory has no number."""

    directory: str
    number: int | None


@functools.lru_cache(maxsize=2)
def read_meta_graph(directory: str, files: ModelFiles) -> Any:
    """Returns a SavedModel's `tensorflow.MetaGraphDef` with the tag "serve".

    Raises:
      ModelNotFound: saved_model.pb does not exist, does not parse, or has no such graph.
    """
    path = f"{directory}/{_SAVED_MODEL}"
    if not files.match(path):
        raise ModelNotFound(f"{path} does not exist")
    try:
        saved_model = message_class("tensorflow.SavedModel").FromString(files.read(path))
    except Exception as error:
        raise ModelNotFound(f"{path} is not a SavedModel: {error}") from error
    for meta_graph in saved_model.meta_graphs:
        if "serve" in meta_graph.meta_info_def.tags:
            return meta_graph
    tags = [list(meta_graph.meta_info_def.tags) for meta_graph in saved_model.meta_graphs]
    raise ModelNotFound(f"{path} has no graph tagged 'serve' (its tags: {tags}); export the model for serving")


def what_is_missing(directory: str, files: ModelFiles) -> str | None:
    """Returns why this directory is not a complete SavedModel; None if it is one. Assets do not count."""
    try:
        meta_graph = read_meta_graph(directory, files)
    except ModelNotFound as error:
        return str(error)
    variables = files.match(f"{directory}/variables/*")
    shards = collections.defaultdict(set)
    for path in variables:
        if match := _SHARD.search(path):
            shards[int(match.group(2))].add(int(match.group(1)))
    index = f"{directory}/variables/variables.index"
    if _has_variables(meta_graph) and index not in variables:
        return f"{index} does not exist, and the graph has variables"
    if index in variables and not any(numbers == set(range(count)) for count, numbers in shards.items()):
        count, numbers = max(shards.items(), default=(1, set()))
        return f"{len(numbers)} of {count} shards of variables are in {directory}/variables"
    return None


def missing_assets(directory: str, meta_graph: Any, files: ModelFiles) -> list[str]:
    """Returns the asset files that a SavedModel names and lacks, as paths under its directory."""
    paths = [f"assets/{name}" for name in _assets(meta_graph)]
    return [path for path in paths if not files.match(f"{directory}/{path}")]


def _has_variables(meta_graph: Any) -> bool:
    nodes = meta_graph.graph_def.node
    bodies = (function.node_def for function in meta_graph.graph_def.library.function)
    return any(node.op in _VARIABLE_OPS for nodes in (nodes, *bodies) for node in nodes)


def _assets(meta_graph: Any) -> list[str]:
    """Returns the names of files under assets/. TensorFlow 2 lists them in a field, TensorFlow 1 in a collection."""
    names = [asset.filename for asset in meta_graph.asset_file_def]
    if _ASSETS_KEY in meta_graph.collection_def:
        asset_class = message_class("tensorflow.AssetFileDef")
        packed = meta_graph.collection_def[_ASSETS_KEY].any_list.value
        names += [asset_class.FromString(asset.value).filename for asset in packed]
    return sorted(set(names))


def list_versions(base: str, files: ModelFiles) -> list[Version]:
    """Returns the numbered directories under a base path that have a saved_model.pb, newest first.

    The directory 0007 is version 7, as in TF Serving.
    """
    found: dict[int, Version] = {}
    for path in files.match(f"{base}/*/{_SAVED_MODEL}"):
        name = path.removesuffix(f"/{_SAVED_MODEL}").rsplit("/", 1)[-1]
        if name.isdecimal():
            found.setdefault(int(name), Version(f"{base}/{name}", int(name)))
    return [found[number] for number in sorted(found, reverse=True)]


def find_versions(base: str, files: ModelFiles) -> list[int]:
    """Returns the numbers of the versions under a base path, newest first."""
    return [version.number for version in list_versions(base, files) if version.number is not None]


# The version that `find_version` has returned last, under (base, files), and the fingerprint of its files before.
_last: dict[tuple[str, ModelFiles], tuple[Version, str]] = {}


def find_version(base: str, files: ModelFiles, wanted: int | None = None) -> Version:
    """Returns the SavedModel to load: the base path itself, its version `wanted`, or its newest complete version.

    A local job finds at launch what it loads a moment later: if the files are the same, they are not read again.

    Raises:
      ModelNotFound: no complete one exists; the text names what was found and what is missing.
    """
    version, look = _last.get((base, files), (None, ""))
    if version and version.number == wanted and files.fingerprint(version.directory) == look:
        return version
    _last.clear()
    read_meta_graph.cache_clear()  # the files may have been overwritten since they were read
    return _find_version(base, files, wanted)


def _look(version: Version, base: str, files: ModelFiles) -> str | None:
    """Returns why a version is not complete; None if it is, which is noted."""
    look = files.fingerprint(version.directory)
    problem = what_is_missing(version.directory, files)
    if problem is None:
        _last[base, files] = version, look
    return problem


def _find_version(base: str, files: ModelFiles, wanted: int | None) -> Version:
    if files.match(f"{base}/{_SAVED_MODEL}"):
        problem = _look(Version(base, None), base, files)
        if problem:
            raise ModelNotFound(f"--model {base} is not complete: {problem}")
        return Version(base, None)
    found = list_versions(base, files)
    problems = []
    for version in found if wanted is None else [each for each in found if each.number == wanted]:
        problem = _look(version, base, files)
        if problem is None:
            return version
        problems.append(f"version {version.number}: {problem}")
    if problems:
        raise ModelNotFound(f"--model {base} has no complete version; " + "; ".join(problems))
    if wanted is not None:
        numbers = [version.number for version in found]
        raise ModelNotFound(f"--model {base} has no version {wanted}; it has {numbers or 'none'}")
    raise ModelNotFound(f"--model {base}: {explain(base, files)}")
