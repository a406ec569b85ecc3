"""A whole run: its stages in order, what each leaves, where that lies, and how it resumes."""
