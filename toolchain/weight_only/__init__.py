"""Weights alone in few bits: int4 and int8 by blocks, rounded tensor by tensor."""
