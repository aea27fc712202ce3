"""Checks whether one version of a model can replace another: it must have the same inputs and outputs."""

from collections.abc import Iterator, Sequence

from sluice.models.errors import SignatureError
from sluice.models.signature import ColumnSpec, Signature, TensorSpec, shape_text


def check_fit(new: Signature, wanted: Signature) -> None:
    """Checks that rows bound for `wanted` can be fed to `new`, and that outputs of both can be merged.

    The names of tensors in the graph are not compared: they differ between any two exports.

    Raises:
      SignatureError: some input, feature or output differs; the text names all that do.
    """
    found = [
        *_differences("input", new.inputs, wanted.inputs),
        *_differences("feature", new.features or (), wanted.features or ()),
        *_differences("output", new.outputs, wanted.outputs),
    ]
    if new.takes_examples != wanted.takes_examples:
        takes = {True: "serialized tf.Examples", False: "no tf.Examples"}
        found.append(f"it takes {takes[new.takes_examples]}, not {takes[wanted.takes_examples]}")
    if found:
        raise SignatureError(f"signature '{new.name}' is not the one that this job uses: " + "; ".join(found))


def _differences(
    role: str, new: Sequence[TensorSpec | ColumnSpec], wanted: Sequence[TensorSpec | ColumnSpec]
) -> Iterator[str]:
    forms, wanted_forms = ({spec.name: _form(spec) for spec in specs} for specs in (new, wanted))
    for name in sorted(forms.keys() | wanted_forms.keys()):
        if name not in forms:
            yield f"it lacks {role} '{name}', {wanted_forms[name]}"
        elif name not in wanted_forms:
            yield f"it has {role} '{name}' besides, {forms[name]}"
        elif forms[name] != wanted_forms[name]:
            yield f"{role} '{name}' is {forms[name]}, not {wanted_forms[name]}"


def _form(spec: TensorSpec | ColumnSpec) -> str:
    """Returns all that must be equal of a tensor or column."""
    sizes = "of unknown rank" if spec.shape is None else shape_text(spec.shape)
    if isinstance(spec, ColumnSpec):
        return f"{spec.dtype} {sizes}, {'required' if spec.required else 'optional'}"
    kind = "" if spec.kind == "dense" else f"{spec.kind} "
    return f"{kind}{spec.dtype} {sizes}"
