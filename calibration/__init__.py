"""From samples to ranges: what INT8 must cover, how channels are smoothed, what it costs."""

from . import pairs, ranges
from .blocks import is_large
from .case import Case, Choice, Freedom
from .choosing import choose, covering
from .formats import E4M3, FORMATS, INT8, INT16, Format, Formats
from .forward import Arrays, Feed, forward, forward_blocks
from .observers import Observer
from .ranges import Calibrated, Kept, Range
from .rounding import Compensation, compensated, nearest, rounded, steps_of
from .samples import Samples, read_samples
from .second_moments import SecondMoments
from .statistics import Seen, Size, Watched, collect
from .threads import ahead, one_thread, side_by_side

__all__ = [
    "E4M3",
    "FORMATS",
    "INT8",
    "INT16",
    "Arrays",
    "Calibrated",
    "Case",
    "Choice",
    "Compensation",
    "Feed",
    "Format",
    "Formats",
    "Freedom",
    "Kept",
    "Observer",
    "Range",
    "Samples",
    "SecondMoments",
    "Seen",
    "Size",
    "Watched",
    "ahead",
    "choose",
    "collect",
    "compensated",
    "covering",
    "forward",
    "forward_blocks",
    "is_large",
    "nearest",
    "one_thread",
    "pairs",
    "ranges",
    "read_samples",
    "rounded",
    "side_by_side",
    "steps_of",
]
