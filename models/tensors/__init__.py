"""Columns to tensors: how rows bind to a signature, tf.Examples, TFRecord."""
