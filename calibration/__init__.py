"""From samples to ranges: what INT8 must cover, how channels are smoothed, what it costs."""

from . import ranges
from .choosing import Case, Choice, Freedom, choose
from .forward import Feed, forward
from .ranges import Calibrated, Range
from .rounding import compensated, nearest, rounded, steps_of
from .samples import Samples, read_samples
from .statistics import Seen, Watched, collect

__all__ = [
    "Calibrated",
    "Case",
    "Choice",
    "Feed",
    "Freedom",
    "Range",
    "Samples",
    "Seen",
    "Watched",
    "choose",
    "collect",
    "compensated",
    "forward",
    "nearest",
    "ranges",
    "read_samples",
    "rounded",
    "steps_of",
]
