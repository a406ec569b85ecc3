"""One round of an experiment: the compiled steps, scoring, selection, and retraining."""
