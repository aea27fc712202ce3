"""Small SavedModels of the kinds that users have, with sample rows and the right answers.

Nothing here imports TensorFlow before a case is built. `test_saved_models.py` proves the answers with TensorFlow alone,
so a test that disagrees with `case.expected` has found a fault in our code.
"""

from __future__ import annotations

from tests.support.saved_models import (
    columns as saved_models_columns,
)
from tests.support.saved_models import (
    keras as saved_models_keras,
)
from tests.support.saved_models import (
    shapes as saved_models_shapes,
)
from tests.support.saved_models import (
    tf1 as saved_models_tf1,
)
from tests.support.saved_models.case import ModelCase

__all__ = ["CASES", "ModelCase"]

CASES: tuple[ModelCase, ...] = (
    *saved_models_tf1.CASES,
    *saved_models_columns.CASES,
    *saved_models_shapes.CASES,
    *saved_models_keras.CASES,
)
