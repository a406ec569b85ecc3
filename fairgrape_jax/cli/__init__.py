"""The `fairgrape` command."""
