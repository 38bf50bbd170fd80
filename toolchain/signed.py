"""Signing bundles from the command line: the key's password comes from the environment."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import ConfigError
from ..deploy.bundle import digest
from ..deploy.places import ARCHIVE
from ..deploy.signing import Signer
from ..deploy.signing import sign as sign_bundle
from .config import Bundle

PASSWORD = "LLMDEPLOY_KEY_PASSWORD"


def sign(
    bundle: Path, key: Path, certificate: Path | None, chain: Sequence[Path]
) -> dict[str, Any]:
    """Sign an edge bundle's archive in place; its path, sha256 and bytes.

    Raises:
        ConfigError: a file is missing, or the key or certificate cannot be used.
        BundleError: it is no sound bundle.
        MissingError: model-signing is not installed.
    """
    for path in (bundle, key, certificate, *chain):
        if path is not None and not path.is_file():
            raise ConfigError("no file there", where=path)
    if not bundle.name.endswith(ARCHIVE):
        raise ConfigError(f"only bundles NAME{ARCHIVE} are signed", where=bundle)
    sign_bundle(bundle, Signer(key, os.environ.get(PASSWORD), certificate, tuple(chain)))
    return {"path": str(bundle), "sha256": digest(bundle), "bytes": bundle.stat().st_size}


def signer_digests(table: Bundle, place: Callable[[str], Path]) -> list[str]:
    """What a signature is fresh by: the bytes of key, certificate and chain, where they exist."""
    named = [each for each in (table.sign, table.certificate, *table.chain) if each]
    return [digest(place(each)) if place(each).is_file() else "" for each in named]


def signed(
    made: dict[str, Any], folder: Path, table: Bundle, place: Callable[[str], Path]
) -> dict[str, Any]:
    """What a packager made, signed where `[bundle] sign` names a key; `place` resolves its paths.

    Raises:
        ConfigError: a file is missing, or the key or certificate cannot be used.
        MissingError: model-signing is not installed.
    """
    if not table.sign:
        return made
    certificate = place(table.certificate) if table.certificate else None
    chain = [place(each) for each in table.chain]
    found = sign(folder / made["path"], place(table.sign), certificate, chain)
    return {**made, "sha256": found["sha256"], "bytes": found["bytes"], "signed": True}
