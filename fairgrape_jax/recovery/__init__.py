"""Going on after a failure: back from a number that is not finite, and to a batch that fits."""
