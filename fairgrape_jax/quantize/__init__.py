"""Weights and activations in int8, on top of any mask, for a network of any library."""

from fairgrape_jax.quantize.network import (
    Int8Network,
    SimulatedInt8,
    quantize_int8,
    simulate_int8,
)
from fairgrape_jax.quantize.outputs import simulate

__all__ = ["Int8Network", "SimulatedInt8", "quantize_int8", "simulate", "simulate_int8"]
