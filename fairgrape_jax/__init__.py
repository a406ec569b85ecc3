"""Prune image classifiers without making them unfair, at accelerator scale, in JAX."""

__version__ = "0.1.0"
