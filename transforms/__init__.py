"""Beam transforms over models/: readers, `Predict`, writers. Importing this package imports no TensorFlow."""
