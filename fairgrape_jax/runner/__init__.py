"""A whole run: its stages, what each leaves and where, how it resumes, what can be wrong before."""
