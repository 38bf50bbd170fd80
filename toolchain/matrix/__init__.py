"""A matrix of releases: models x precisions x targets, side by side, resumable, one report."""

from .filling import fill
from .plan import Cell, read

__all__ = ["Cell", "fill", "read"]
