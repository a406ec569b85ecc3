"""Faces: the recipes that were confirmed on handwriting, and structures, on UTKFace and CelebA."""
