"""Beam over models/: readers, `Predict`, writers. No TensorFlow here."""
