"""Packages that must not be needed: importing one raises as if it were not installed."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder


def hide(packages: Sequence[str]) -> None:
    """Refuse to import `packages`, for the rest of the process."""
    sys.meta_path.insert(0, _Hidden(packages))


class _Hidden(MetaPathFinder):
    """Refuses to import packages, to prove that nothing needs them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Raise for a hidden package; leave every other to the next finder."""
        if fullname.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"{fullname} is hidden", name=fullname)
