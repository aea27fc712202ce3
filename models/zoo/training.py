"""The training code that all models of the zoo share. Plain TensorFlow, without Keras to import."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sluice.models.saved_model.tensorflow_import import tensorflow

if TYPE_CHECKING:
    from tensorflow import DType, Tensor, Variable
    from tensorflow.types.experimental import ConcreteFunction


def dense(generator: np.random.Generator, inputs: int, outputs: int, name: str) -> tuple["Variable", "Variable"]:
    """Returns the variables of a dense layer: weights float32 [inputs, outputs] (He) and bias float32 [outputs]."""
    tf = tensorflow()
    weights = generator.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)
    return (
        tf.Variable(weights.astype(np.float32), name=f"{name}/kernel"),
        tf.Variable(np.zeros(outputs, np.float32), name=f"{name}/bias"),
    )


def fit(
    loss: "Callable[..., Tensor]",
    variables: "Sequence[Variable]",
    data: "Sequence[Tensor | np.ndarray]",
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
    batch_rows: int = 256,
) -> None:
    """Minimizes `loss(*rows of data)` over the variables with Adam, at a rate that falls linearly to zero.

    Args:
      data: tensors or arrays of equal length, held in memory; a batch has the same rows of each.
    """
    tf = tensorflow()
    tensors = [tf.convert_to_tensor(item) for item in data]
    rows = int(tensors[0].shape[0])
    slots = [(tf.Variable(tf.zeros_like(v)), tf.Variable(tf.zeros_like(v))) for v in variables]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.float32)])
    def step(indices: "Tensor", rate: "Tensor") -> None:
        with tf.GradientTape() as tape:
            value = loss(*[tf.gather(tensor, indices) for tensor in tensors])
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(value, variables)]
        for variable, (mean, square), gradient in zip(variables, slots, gradients, strict=True):
            mean.assign(0.9 * mean + 0.1 * gradient)
            square.assign(0.99 * square + 0.01 * gradient * gradient)
            variable.assign_sub(rate * mean / (tf.sqrt(square) + 1e-6))

    generator = np.random.default_rng(seed)
    batches = [
        order[begin : begin + batch_rows]
        for order in (generator.permutation(rows) for _ in range(epochs))
        for begin in range(0, rows, batch_rows)
    ]
    for number, indices in enumerate(batches):
        step(indices, np.float32(learning_rate * (1 - number / len(batches))))


def signature(
    function: "Callable[[dict[str, Tensor]], dict[str, Tensor]]",
    inputs: "Mapping[str, tuple[DType, Sequence[int | None]]]",
) -> "ConcreteFunction":
    """Returns the concrete function that serves `function` with named inputs.

    Args:
      function: `{input name: tensor} -> {output name: tensor}`.
      inputs: input name -> (dtype, shape).
    """
    tf = tensorflow()

    def serve(**features: "Tensor") -> dict[str, "Tensor"]:
        return {name: tf.identity(value, name=name) for name, value in function(features).items()}

    specs = {name: tf.TensorSpec(shape, dtype, name=name) for name, (dtype, shape) in inputs.items()}
    return tf.function(serve).get_concrete_function(**specs)
