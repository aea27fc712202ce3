"""The signature by which a reader types its columns."""

from sluice.models.cache import ModelLike, recipe_of
from sluice.models.saved_model.signature_reader import pick_signature
from sluice.models.signature import Signature
from sluice.models.signatures import find_model
from sluice.transforms.core.model_files import files_of

# Where no model says what it takes.
NOTHING = Signature("", "", (), ())


def signature_of(model: ModelLike | None) -> Signature:
    """Returns the signature of a model; None: one that takes no column.

    Raises:
      UsageError: there is no such model, or no such signature of it.
    """
    if model is None:
        return NOTHING
    recipe = recipe_of(model)
    if recipe.signature is not None:
        return recipe.signature
    endpoint = recipe.model.endpoint
    found = find_model(recipe.spec, files_of(recipe.spec), endpoint, endpoint.rpc_timeout_secs)
    return pick_signature(found.signatures, recipe.model.signature, recipe.model.outputs)


def default_columns(model: ModelLike | None) -> tuple[tuple[str, str], ...]:
    """Returns the columns that a recipe has values for, which the input need not have, with these as text."""
    if model is None:
        return ()
    return tuple((name, str(value)) for name, value in recipe_of(model).model.defaults)
