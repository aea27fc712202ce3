"""A few lines of training that every model of the zoo shares. TensorFlow only: no Keras to import, no callbacks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


def dense(generator: np.random.Generator, inputs: int, outputs: int, name: str) -> tuple[Any, Any]:
    """Returns the variables of a dense layer: weights float32 [inputs, outputs] (He) and bias float32 [outputs]."""
    import tensorflow as tf

    weights = generator.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)
    return (
        tf.Variable(weights.astype(np.float32), name=f"{name}/kernel"),
        tf.Variable(np.zeros(outputs, np.float32), name=f"{name}/bias"),
    )


def fit(
    loss: Callable[..., Any],
    variables: Sequence[Any],
    data: Sequence[Any],
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
    batch_rows: int = 256,
) -> None:
    """Minimizes `loss(*rows of data)` over the variables with Adam, its rate falling in a line to zero.

    Args:
      data: tensors or arrays of equal length, held in memory; a batch takes the same rows of each.
    """
    import tensorflow as tf

    tensors = [tf.convert_to_tensor(item) for item in data]
    rows = int(tensors[0].shape[0])
    slots = [(tf.Variable(tf.zeros_like(v)), tf.Variable(tf.zeros_like(v))) for v in variables]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.float32)])
    def step(indices: Any, rate: Any) -> None:
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


def signature(function: Callable[[dict[str, Any]], dict[str, Any]], inputs: Mapping[str, Any]) -> Any:
    """Returns the concrete function that serves `function` with named inputs.

    Args:
      function: `{input name: tensor} -> {output name: tensor}`.
      inputs: input name -> (dtype, shape).
    """
    import tensorflow as tf

    def serve(**features: Any) -> dict[str, Any]:
        return {name: tf.identity(value, name=name) for name, value in function(features).items()}

    specs = {name: tf.TensorSpec(shape, dtype, name=name) for name, (dtype, shape) in inputs.items()}
    return tf.function(serve).get_concrete_function(**specs)
