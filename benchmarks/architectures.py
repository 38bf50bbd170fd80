"""Tiny random models of many architectures: what coverage.py exports."""

from tiny import Tiny
from tiny_causal import CAUSAL
from tiny_encoders import ENCODERS
from tiny_media import MEDIA
from tiny_pairs import PAIRS

__all__ = ["TINY", "Tiny"]
TINY: tuple[Tiny, ...] = (*ENCODERS, *CAUSAL, *PAIRS, *MEDIA)
