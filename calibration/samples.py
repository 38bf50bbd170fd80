"""Calibration samples: texts, or ready feeds, from the files people have."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import ConfigError
from .forward import Feed
from .tables import read_csv, read_jsonl, read_parquet, read_saved, read_tsv
from .texts import read_lines

#: Rows of a ready feed's arrays that make one batch, unless it is said.
BATCH = 8
#: Fewer samples than this give ranges that new text leaves often.
FEW = 32

Reader = Callable[[Path, str | None, str], list[str]]
READERS: dict[str, Reader] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".parquet": read_parquet,
}


@dataclass(frozen=True)
class Samples:
    """Texts or ready feeds, whichever the file has; `digest` is of what was taken."""

    texts: tuple[str, ...]
    feeds: tuple[Feed, ...]
    digest: str

    @property
    def count(self) -> int:
        """How many samples there are: texts, or rows of ready feeds."""
        return len(self.texts) or sum(len(next(iter(feed.values()))) for feed in self.feeds)

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of them."""
        if self.count >= FEW:
            return ()
        return (f"only {self.count} samples: give at least {FEW}, better some hundreds",)


def read_samples(
    path: Path,
    *,
    field: str | None = None,
    encoding: str = "utf-8",
    count: int,
    seed: int,
    batch: int = BATCH,
) -> Samples:
    """A draw of `count` samples, in the file's order; all where there are fewer.

    .jsonl, .csv, .tsv, .parquet, a saved `datasets` folder, .npz (arrays by input name, a sample
    a row); every other file is text, a sample a line. `field` names the column or key, or
    several with commas between them; without it the one with the longest texts is taken. Ready
    feeds have `batch` rows each.

    Raises:
        ConfigError: the file is missing, empty, not text in that encoding, or has no such field.
        MissingError: the package that reads the format is not installed.
    """
    if not path.exists():
        raise ConfigError("no such file", where=path, mend="name a file of samples that exists")
    if path.suffix == ".npz":
        return _ready(path, count, seed, batch)
    reader = read_saved if path.is_dir() else READERS.get(path.suffix.lower(), read_lines)
    texts = [text for text in reader(path, field, encoding) if text.strip()]
    if not texts:
        raise ConfigError("no samples", where=path, mend="it holds no text: name another")
    chosen = tuple(texts[index] for index in draw(len(texts), count, seed))
    return Samples(chosen, (), digest_texts(chosen))


def draw(total: int, count: int, seed: int) -> NDArray[np.int64]:
    """`count` of `total` indices, in order, each equally likely."""
    if total <= count:
        return np.arange(total)
    chosen = np.random.default_rng(seed).choice(total, count, replace=False)
    return np.sort(chosen)


def digest_texts(texts: Sequence[str]) -> str:
    """sha256 over the texts, each by its length and its UTF-8 bytes."""
    found = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    return found.hexdigest()


def _ready(path: Path, count: int, seed: int, batch: int) -> Samples:
    arrays = _arrays(path)
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ConfigError(
            f"the arrays hold {lengths} samples", where=path, mend="give each the same, a row each"
        )
    chosen = draw(next(iter(lengths.values())), count, seed)
    taken = {name: array[chosen] for name, array in sorted(arrays.items())}
    feeds = tuple(
        {name: array[start : start + batch] for name, array in taken.items()}
        for start in range(0, len(chosen), batch)
    )
    return Samples((), feeds, digest_arrays(taken))


def _arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise ConfigError(
            f"not a whole .npz file ({error})", where=path, mend="write it with numpy.savez"
        ) from error
    except Exception as error:  # zipfile raises its own
        raise ConfigError("not a .npz file", where=path, mend=str(error)) from error
    if not arrays or any(array.ndim == 0 for array in arrays.values()):
        raise ConfigError("no arrays with a sample a row", where=path, mend="name another file")
    return arrays


def digest_arrays(arrays: Feed) -> str:
    """sha256 over arrays by name, dtype, shape and bytes."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
