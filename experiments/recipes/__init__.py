"""The study of recipes: what helps the group that pruning hurts, screened on handwriting."""
