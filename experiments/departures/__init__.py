"""The study of departures: what the official code does otherwise than its paper, one at a time."""
