"""Continual learning with a variational posterior and a memory of memorable examples."""
