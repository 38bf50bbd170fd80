"""Provenance that is signed: an in-toto statement in a DSSE envelope, as `cosign` writes it."""

import json
from pathlib import Path
from typing import Any

from .. import BundleError, ConfigError, MissingError
from .bundle import digest
from .provenance import PREDICATE, SUFFIX

#: One envelope a line.
ENVELOPE = ".intoto.jsonl"
PAYLOAD = "application/vnd.in-toto+json"


def attest(archive: Path, private_key: Path, password: str | None = None) -> Path | None:
    """Sign the provenance that lies beside an archive, after putting its digest right.

    Gives the envelope's file, None where there is no provenance.

    Raises:
        ConfigError: the key cannot be used.
        MissingError: securesystemslib, which comes with model-signing, is not installed.
    """
    plain = archive.with_name(archive.name + SUFFIX)
    if not plain.is_file():
        return None
    statement = json.loads(plain.read_bytes())
    statement["subject"] = [{"name": archive.name, "digest": {"sha256": digest(archive)}}]
    text = json.dumps(statement, indent=2, ensure_ascii=False) + "\n"
    envelope = _dsse().Envelope(text.encode(), PAYLOAD, {})
    envelope.sign(_signer(private_key, password))
    target = archive.with_name(archive.name + ENVELOPE)
    target.write_text(json.dumps(envelope.to_dict()) + "\n", encoding="utf-8")
    plain.write_text(text, encoding="utf-8")
    return target


def verify_attestation(archive: Path, public_key: Path) -> dict[str, Any]:
    """The statement about an archive, when it is signed by the key and is of these very bytes.

    Raises:
        BundleError: there is none, or it does not hold.
    """
    path = archive.with_name(archive.name + ENVELOPE)
    if not path.is_file():
        raise BundleError("no signed provenance", where=path, mend="sign the bundle")
    key = _key(public_key)
    try:
        envelope = _dsse().Envelope.from_dict(json.loads(path.read_bytes()))
        envelope.verify([key], 1)
        statement = json.loads(envelope.payload)
        subjects = [subject["digest"]["sha256"] for subject in statement["subject"]]
        right = statement["predicateType"] == PREDICATE and envelope.payload_type == PAYLOAD
    except Exception as error:
        what = f"the provenance does not hold: {' '.join(str(error).split())[:200]}"
        raise BundleError(what, where=path) from error
    if not right or digest(archive) not in subjects:
        raise BundleError("the provenance is not of this archive", where=path)
    return statement


def _dsse() -> Any:
    try:
        from securesystemslib import dsse
    except ImportError as error:
        mend = "pip install 'llmdeploy[sign]'"
        raise MissingError("securesystemslib is not installed", mend=mend) from error
    return dsse


def _signer(path: Path, password: str | None) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib import signer

    library: Any = signer
    try:
        hidden = password.encode() if password else None
        return library.CryptoSigner(load_pem_private_key(path.read_bytes(), hidden))
    except Exception as error:
        raise ConfigError("cannot sign the provenance with this key", where=path) from error


def _key(path: Path) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib import signer

    library: Any = signer
    try:
        return library.SSlibKey.from_crypto(load_pem_public_key(path.read_bytes()))
    except Exception as error:
        raise ConfigError("cannot read the key", where=path) from error
