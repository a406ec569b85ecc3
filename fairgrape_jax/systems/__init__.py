"""Related systems of pruning: their formulas as pure functions. Their rows are in `methods/`."""
