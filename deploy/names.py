"""Which names a file in a bundle may have: relative, and one file on every file system."""

import unicodedata

#: A tar header without extensions holds this many bytes of name.
MAX_NAME = 100
_FORBIDDEN = frozenset('\\:*?"<>|')
#: Unicode's categories of control, format and surrogate characters.
_UNSEEN = frozenset(["Cc", "Cf", "Cs"])
#: Names that Windows keeps for devices.
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul"]
    + [f"{kind}{number}" for kind in ("com", "lpt") for number in range(1, 10)]
)


def problem(name: str) -> str | None:
    """What is wrong with one name, None when it is fit for a bundle."""
    if not name or len(name.encode("utf-8", "replace")) > MAX_NAME:
        return f"is empty or longer than {MAX_NAME} bytes"
    if any(letter in _FORBIDDEN or unicodedata.category(letter) in _UNSEEN for letter in name):
        return "has a character that not every file system takes"
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "leaves the bundle, or is not in its plainest form"
    if any(part != part.strip() or part.endswith(".") for part in parts):
        return "has a part that starts or ends with a space or ends with a dot"
    if any(part.split(".")[0].casefold() in _DEVICES for part in parts):
        return "is a device on Windows"
    return None


class Names:
    """Names that are added one by one; each must be one file of its own on any file system.

    Names are compared case-folded and in Unicode's NFC form.
    """

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        #: A folder's folded name to its spelling and the first name in it.
        self._folders: dict[str, tuple[str, str]] = {}

    def add(self, name: str) -> str | None:
        """Add a name; give the earlier one that it collides with, if any."""
        key = _fold(name)
        earlier = self._files.get(key) or self._folders.get(key, ("", ""))[1]
        if earlier:
            return earlier
        parts, spelled = key.split("/"), name.split("/")
        for depth in range(1, len(parts)):
            folder, spelling = "/".join(parts[:depth]), "/".join(spelled[:depth])
            if folder in self._files:
                return self._files[folder]
            if self._folders.setdefault(folder, (spelling, name))[0] != spelling:
                return self._folders[folder][1]
        self._files[key] = name
        return None


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
