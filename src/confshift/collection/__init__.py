"""From a model and a loader to predictions: torch lives here."""
