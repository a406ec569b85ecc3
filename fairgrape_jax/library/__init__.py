"""What `import fairgrape_jax` offers beside pure functions: whole runs, and audits of arrays."""
