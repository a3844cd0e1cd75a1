"""Continual learning with a variational posterior and a memory of memorable examples."""

from bayesdual.ivon import IVON
from bayesdual.posterior import Posterior

__all__ = ["IVON", "Posterior"]
