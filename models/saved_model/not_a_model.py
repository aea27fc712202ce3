"""What there is at a --model path that holds no SavedModel, and how to get one from it."""

import contextlib
import difflib
import os
import shlex
from collections.abc import Sequence

from sluice.models.files import ModelFiles

_SAVED_MODEL = "saved_model.pb"
_KERAS = (".keras", ".h5", ".hdf5")
_TORCH = (".pt", ".pth", ".ckpt.pt", ".safetensors")
_PICKLE = (".pkl", ".pickle", ".joblib")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_CHECKPOINT_FILES = (".index", ".data-00000-of-00001", ".meta")
# So many models are listed where one may be meant.
_SHOWN = 5
_EXPORT = (
    "Sluice takes a SavedModel: the directory that Keras' `model.export(DIRECTORY)` or `tf.saved_model.save` writes"
)


def explain(base: str, files: ModelFiles) -> str:
    """Returns why a path has no SavedModel, and the remedy.

    Args:
      base: of which neither itself nor a numbered directory under it has a saved_model.pb.
    """
    if files.match(base) and not os.path.isdir(base):
        return _file(base)
    inside = [path.removeprefix(base).lstrip("/") for path in files.match(f"{base}/*")]
    deeper = _under(base, files)
    if deeper:
        return f"there is no {_SAVED_MODEL} in it, but there are models deeper in it: give --model {deeper}"
    if inside:
        return _directory(base, inside)
    if files.match(f"{base}.index"):
        return _checkpoint()
    if os.path.isdir(base) or files.match(f"{base}/**"):
        return f"there is no {_SAVED_MODEL} in it, nor in a numbered directory under it; {_EXPORT}"
    return f"there is nothing at this path{_near(base)}; {_EXPORT}"


def _file(path: str) -> str:
    """Returns the text for a path that is a file."""
    name, directory = os.path.basename(path), os.path.dirname(path) or "."
    quoted = shlex.quote(path)
    stem = path[: len(path) - len(name)] + name.split(".")[0]
    if name == _SAVED_MODEL:
        return f"it is the file of a SavedModel: give its directory, --model {directory}"
    if name.endswith(_KERAS):
        code = f"import keras; keras.models.load_model({path!r}).export({stem!r})"
        command = f"python -c {shlex.quote(code)}"
        return f"it is a file of Keras, and no SavedModel. Export it: {command}; then give --model {stem}"
    if name.endswith(".onnx"):
        return (
            f"it is an ONNX model, and no SavedModel. Convert it: pip install onnx2tf; onnx2tf -i {quoted} -o "
            f"{shlex.quote(stem)} -osd; then give --model {stem}"
        )
    if name.endswith((".tflite", ".lite")):
        return (
            "it is a model for TensorFlow Lite, which cannot be made a SavedModel again: export the model that it "
            "was made of, with `model.export(DIRECTORY)`"
        )
    if name.endswith((".index", ".meta", ".ckpt")) or ".data-" in name:
        return _checkpoint()
    if name.endswith(_TORCH):
        return "it is a PyTorch model. Export it to ONNX (torch.onnx.export), and convert that with onnx2tf -osd"
    if name.endswith(_PICKLE):
        return f"it is a Python object, such as a model of scikit-learn, which Sluice cannot run; {_EXPORT}"
    if name.endswith(_ARCHIVES):
        return "it is an archive: unpack it, and give the directory of the SavedModel in it"
    if name.endswith(".pb"):
        return f"it is a graph without signatures (a frozen graph, perhaps); {_EXPORT}"
    return f"it is a file, and no directory; {_EXPORT}"


def _checkpoint() -> str:
    return (
        "it is a checkpoint: values of variables, without the model that uses them. In the code that makes the model, "
        "load it (`model.load_weights(PATH)`, or tf.train.Checkpoint.restore) and call `model.export(DIRECTORY)`"
    )


def _directory(base: str, names: Sequence[str]) -> str:
    """Returns the text for a directory that has files."""
    if any(name.startswith("variables.") for name in names):
        return f"it holds the variables of a SavedModel: give its parent, --model {os.path.dirname(base)}"
    if "checkpoint" in names or any(name.endswith(_CHECKPOINT_FILES) for name in names):
        return _checkpoint()
    if "config.json" in names and any(name.endswith(".weights.h5") for name in names):
        return f"it is an unpacked .keras file: load that in Keras, and call `model.export(DIRECTORY)`; {_EXPORT}"
    endings = (*_KERAS, ".onnx", ".tflite")
    found = next((name for name in names if name.endswith(endings)), "")
    if found:
        return f"there is no {_SAVED_MODEL} in it, but {found}: {_file(f'{base}/{found}')}"
    if "model.json" in names:
        return f"it is a model for TensorFlow.js; {_EXPORT}"
    return f"there is no {_SAVED_MODEL} in it, nor in a numbered directory under it; {_EXPORT}"


def _under(base: str, files: ModelFiles) -> str:
    """Returns the models that are deeper in a directory, for --model; "" if there is none."""
    found = files.match(f"{base}/*/{_SAVED_MODEL}") + files.match(f"{base}/*/*/{_SAVED_MODEL}")
    models = dict.fromkeys(_without_version(path.removesuffix(f"/{_SAVED_MODEL}")) for path in found)
    return " or ".join(list(models)[:_SHOWN])


def _without_version(directory: str) -> str:
    parent, _, name = directory.rpartition("/")
    return parent if name.isdecimal() else directory


def _near(base: str) -> str:
    """Returns " (did you mean ...?)" for a local path beside directories; "" if none has a similar name."""
    parent, name = os.path.split(base)
    beside: list[str] = []
    with contextlib.suppress(OSError):
        beside = [entry.name for entry in os.scandir(parent or ".") if entry.is_dir()] if "://" not in base else []
    near = difflib.get_close_matches(name, sorted(beside), 1, 0.6)
    return f" (did you mean {os.path.join(parent, near[0])}?)" if near else ""
