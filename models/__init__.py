"""Calls models: `sluice.open_model(uri)` returns a `Model` for any kind of URI. No Beam here."""
