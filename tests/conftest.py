"""Eight fake CPU devices for every test."""

import os

# Before the first import of jax: with 8 devices on few cores XLA's thread pool, one thread per
# core, can wait for ever in a collective.
os.environ.setdefault("NPROC", "16")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_num_cpu_devices", 8)
