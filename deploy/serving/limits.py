"""How much a server takes on: what is more is refused at the door, so that memory is bounded."""

from dataclasses import dataclass

from ... import ConfigError


@dataclass(frozen=True)
class Limits:
    """Bytes of a body, requests at once, seconds of one, and how requests are put together.

    `batch` rows at most run together, of requests that come within `wait` seconds; `streams`
    texts are written at a time, of at most `max_new_tokens` tokens each.
    """

    body: int = 8 << 20
    queue: int = 256
    seconds: float = 60.0
    body_seconds: float = 15.0
    batch: int = 16
    wait: float = 0.002
    streams: int = 2
    max_new_tokens: int = 1024

    def __post_init__(self) -> None:
        """Refuse what would let nothing in."""
        bad = next((name for name, value in vars(self).items() if value < 0), None)
        least = min(self.body, self.queue, self.batch, self.streams, self.max_new_tokens)
        if bad or least < 1 or not self.seconds or not self.body_seconds:
            raise ConfigError(f"a limit that lets nothing in: {bad or 'one is 0'}")
