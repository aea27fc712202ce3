"""Adds the outputs of a model to rows: `Predict` in a pipeline of Beam, `predict` without Beam."""
