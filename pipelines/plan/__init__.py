"""Launch checks: model, input and output against each other."""
