"""A checkpoint becomes an ONNX graph and its weights; torch's own outputs to hold it against."""

from .exporting import WEIGHTS, export, reference

__all__ = ["WEIGHTS", "export", "reference"]
