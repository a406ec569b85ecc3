"""One round of an experiment: compiled steps, scoring, selection, retraining, prediction."""
