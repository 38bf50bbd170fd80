"""What a checkpoint's README.md says of itself in its front matter: licence, data, ancestors."""

from dataclasses import dataclass
from pathlib import Path

README = "README.md"
#: More of a README than its front matter needs.
_MAX_CHARACTERS = 1 << 16


@dataclass(frozen=True)
class Card:
    """The fields of a model card that a bill of materials takes."""

    licence: str = ""
    datasets: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()


def card(folder: Path) -> Card:
    """Read the front matter of `folder`'s README.md: `key: value`, `key: [a, b]` and `- value`."""
    path = folder / README
    if not path.is_file():
        return Card()
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = file.read(_MAX_CHARACTERS).splitlines()
    if not lines or lines[0].strip() != "---":
        return Card()
    found: dict[str, list[str]] = {}
    key = ""
    for line in lines[1:]:
        if line.strip() == "---":
            break
        if line.lstrip().startswith("- ") and key:
            found[key] += _values(line.lstrip()[2:])
        elif ":" in line and not line.startswith((" ", "-", "#")):
            key, _, value = line.partition(":")
            found[key] = _values(value)
    licence = next(iter(found.get("license", [])), "")
    return Card(licence, tuple(found.get("datasets", [])), tuple(found.get("base_model", [])))


def _values(text: str) -> list[str]:
    """One value, or those of a list in brackets, without what a comment says behind them."""
    said = f" {text}".partition(" #")[0].strip()
    inside = said.startswith("[") and said.endswith("]")
    values = said[1:-1].split(",") if inside else [said]
    return [plain for value in values if (plain := value.strip().strip("'\""))]
