"""Converts columns to tensors: binding to a signature, tf.Examples, TFRecord."""
