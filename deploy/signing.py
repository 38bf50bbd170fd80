"""Signatures over a bundle's files, by OpenSSF model signing: made and checked without a network.

`bundle.sig` in a bundle is a Sigstore bundle over an in-toto statement that names every other
file with its digest; `model_signing verify` reads it.
"""

import json
import tempfile
from base64 import b64decode
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import BundleError, ConfigError, MissingError
from .archive import Source
from .archive import pack as pack_archive
from .attest import attest
from .bundle import MANIFEST, SIGNATURE, unpack


@dataclass(frozen=True)
class Trust:
    """Whom a device believes: the holder of a key, or of a certificate below these.

    `public_key` is a PEM file of an elliptic curve key; `certificates` are PEM files of roots and
    intermediates.
    """

    public_key: Path | None = None
    certificates: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        """Refuse to trust nobody, which the library would take for whom the system trusts."""
        if bool(self.public_key) == bool(self.certificates):
            raise ConfigError("no one to trust", mend="name a public key, or certificates")


@dataclass(frozen=True)
class Signer:
    """A private key (PEM, elliptic curve), and its certificate with those above it, if any."""

    private_key: Path
    password: str | None = None
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()


def sign(archive: Path, signer: Signer) -> None:
    """Sign every file of a bundle; the archive is replaced by one that carries the signature.

    Provenance that lies beside it is signed too.

    Raises:
        ConfigError: the key or the certificate cannot be used.
        BundleError: it is no sound bundle.
        MissingError: model-signing is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="llmdeploy-", dir=archive.parent) as temporary:
        folder = unpack(archive, Path(temporary) / "bundle")
        (folder / SIGNATURE).unlink(missing_ok=True)
        try:
            _signing(signer).sign(folder, folder / SIGNATURE)
        except Exception as error:
            what = f"cannot sign: {_words(error)}"
            raise ConfigError(what, where=signer.private_key) from error
        files: dict[str, Source] = {
            path.relative_to(folder).as_posix(): path
            for path in folder.rglob("*")
            if path.is_file()
        }
        pack_archive(files, archive, first=[MANIFEST, SIGNATURE])
    attest(archive, signer.private_key, signer.password)


def verify_signature(folder: Path, trust: Trust | None) -> None:
    """Check a bundle's signature against `trust`; without trust, nothing is asked.

    Raises:
        BundleError: it is not signed, signed by another, or a file is not what was signed.
        MissingError: model-signing is not installed.
    """
    if trust is None:
        return
    signature = folder / SIGNATURE
    if signature.is_symlink() or not signature.is_file():
        raise BundleError("the bundle is not signed", where=folder, mend="sign it, or ask for it")
    verifying = _verifying(trust)
    try:
        verifying.verify(folder, signature)
        _in_force(signature, trust)
    except Exception as error:
        raise BundleError(f"the signature does not hold: {_words(error)}", where=folder) from error


def _signing(signer: Signer) -> Any:
    library = _library()
    config = library.signing.Config().set_hashing_config(_hashing(library))
    if signer.certificate is None:
        return config.use_elliptic_key_signer(
            private_key=signer.private_key,
            # The library hands the password on as it is, to where bytes are wanted.
            password=signer.password.encode() if signer.password else None,
        )
    return config.use_certificate_signer(
        private_key=signer.private_key,
        signing_certificate=signer.certificate,
        # The library cannot read a chain of nothing.
        certificate_chain=signer.chain or (signer.certificate,),
    )


def _verifying(trust: Trust) -> Any:
    library = _library()
    config = library.verifying.Config().set_hashing_config(_hashing(library))
    try:
        if trust.public_key:
            return config.use_elliptic_key_verifier(public_key=trust.public_key)
        return config.use_certificate_verifier(certificate_chain=trust.certificates)
    except Exception as error:
        where = trust.public_key or ", ".join(map(str, trust.certificates))
        raise ConfigError(f"cannot read the key: {_words(error)}", where=where) from error


def _in_force(signature: Path, trust: Trust) -> None:
    """Raise when a certificate of the chain has ended, or not begun: the library does not ask."""
    if not trust.certificates:
        return
    from cryptography import x509

    material = json.loads(signature.read_bytes())["verificationMaterial"]
    given = material["x509CertificateChain"]["certificates"]
    chain = [x509.load_der_x509_certificate(b64decode(one["rawBytes"])) for one in given]
    issuers = [one.issuer for one in chain]
    trusted = x509.load_pem_x509_certificates(b"".join(p.read_bytes() for p in trust.certificates))
    now = datetime.now(UTC)
    for one in (*chain, *(root for root in trusted if root.subject in issuers)):
        if not one.not_valid_before_utc <= now <= one.not_valid_after_utc:
            name = one.subject.rfc4514_string()
            raise ValueError(f"the certificate {name} was valid until {one.not_valid_after_utc}")


def _hashing(library: Any) -> Any:
    """sha256 of every file but the signature; nothing else is left out, and links are refused."""
    return library.hashing.Config().set_ignored_paths(
        paths=[Path(SIGNATURE)], ignore_git_paths=False
    )


def _library() -> Any:
    try:
        import model_signing
    except ImportError as error:
        raise MissingError(
            "model-signing is not installed", mend="pip install 'llmdeploy[sign]'"
        ) from error
    return model_signing


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
