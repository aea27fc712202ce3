"""How a model is called: `sluice.open_model(uri)` returns a `Model`, whatever stands behind the URI. No Beam here."""
