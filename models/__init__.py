"""How a model is called: `open_model(uri)` gives a `Model`, whatever stands behind the URI. Never imports Beam."""
