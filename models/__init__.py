"""How a model is called: `open_model(uri)` gives a `Model`, whatever stands behind the URI. Never imports Beam."""

from models.cache import ModelRecipe, open_model
from models.interface import Model, ModelOptions, Outputs
from models.scheduler import SchedulerOptions
from models.uri import parse_model_uri

__all__ = ["Model", "ModelOptions", "ModelRecipe", "Outputs", "SchedulerOptions", "open_model", "parse_model_uri"]
