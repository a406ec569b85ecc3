"""The study of related systems: what each reaches at a budget, and what its training costs."""
