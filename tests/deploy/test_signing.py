import datetime
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from llmdeploy import BundleError, ConfigError
from llmdeploy.deploy.bundle import SIGNATURE, manifest_of, unpack
from llmdeploy.deploy.install import install
from llmdeploy.deploy.installed import Root
from llmdeploy.deploy.selfcheck import verify_bundle
from llmdeploy.deploy.signing import Signer, Trust, sign, verify_signature

from .test_bundle import rewrite
from .test_install import fine

Key = ec.EllipticCurvePrivateKey


def write_key(path: Path, password: str | None = None) -> Key:
    """Write a private key, and its public key beside it as .pub."""
    key = ec.generate_private_key(ec.SECP256R1())
    hidden: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        hidden = serialization.BestAvailableEncryption(password.encode())
    pem = serialization.Encoding.PEM
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, hidden))
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    path.with_suffix(".pub").write_bytes(key.public_key().public_bytes(pem, public))
    return key


def write_certificate(path: Path, key: Key, issuer: tuple[str, Key] | None, days: int) -> None:
    """A certificate for `key`, by itself where there is no issuer; it ends in `days` days."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, path.stem)])
    above, signer = issuer or (path.stem, key)
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(True, False, False, False, False, issuer is None, False, False, False)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, above)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))


@pytest.fixture
def signed(bundle: Path, tmp_path: Path) -> Path:
    write_key(tmp_path / "key.pem")
    sign(bundle, Signer(tmp_path / "key.pem"))
    return bundle


def test_a_signed_bundle_installs_with_its_key_and_still_verifies(
    signed: Path, tmp_path: Path
) -> None:
    trust = Trust(public_key=tmp_path / "key.pub")
    found = install(signed, tmp_path / "device", trust=trust)
    assert found.signed
    assert verify_bundle(signed).ok


def test_a_wrong_key_and_no_signature_are_refused(
    signed: Path, newer: Path, tmp_path: Path
) -> None:
    write_key(tmp_path / "other.pem")
    root = tmp_path / "device"
    with pytest.raises(BundleError, match="signature does not hold") as caught:
        install(signed, root, trust=Trust(public_key=tmp_path / "other.pub"), check=fine)
    assert caught.value.where == str(signed)
    assert not list(Root(root).versions.iterdir())
    trust = Trust(public_key=tmp_path / "key.pub")
    install(signed, root, trust=trust, check=fine)
    with pytest.raises(BundleError, match="is not signed"):
        install(newer, root, trust=trust, check=fine)
    with pytest.raises(ConfigError, match="what is installed was signed"):
        install(newer, root, check=fine)


def test_tampering_under_right_digests_breaks_the_signature(signed: Path, tmp_path: Path) -> None:
    trust = Trust(public_key=tmp_path / "key.pub")
    folder = unpack(signed, tmp_path / "unpacked")
    verify_signature(folder, trust)
    (folder / "licences/LICENSE").write_text("Permission is not granted.\n")
    rewrite(folder, lambda manifest: None)
    with pytest.raises(BundleError, match="licences/LICENSE"):
        verify_signature(folder, trust)


def test_an_added_and_a_missing_file_break_the_signature(signed: Path, tmp_path: Path) -> None:
    trust = Trust(public_key=tmp_path / "key.pub")
    folder = unpack(signed, tmp_path / "unpacked")
    (folder / ".gitattributes").write_text("x")
    with pytest.raises(BundleError, match=r"\.gitattributes"):
        verify_signature(folder, trust)
    (folder / ".gitattributes").unlink()
    (folder / "model/tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"model/tokenizer\.json"):
        verify_signature(folder, trust)


def test_another_bundles_signature_is_refused(signed: Path, newer: Path, tmp_path: Path) -> None:
    """A downgrade that borrows a signature: the older files under the newer signature."""
    sign(newer, Signer(tmp_path / "key.pem"))
    old, new = unpack(signed, tmp_path / "old"), unpack(newer, tmp_path / "new")
    shutil.copy(new / SIGNATURE, old / SIGNATURE)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        verify_signature(old, Trust(public_key=tmp_path / "key.pub"))


@pytest.mark.parametrize("junk", [b"", b"{}", b"[" * 10_000, b'{"mediaType": 1}', b"\xff"])
def test_a_signature_that_is_none_is_one_line(signed: Path, tmp_path: Path, junk: bytes) -> None:
    folder = unpack(signed, tmp_path / "unpacked")
    (folder / SIGNATURE).write_bytes(junk)
    with pytest.raises(BundleError, match="signature does not hold") as caught:
        verify_signature(folder, Trust(public_key=tmp_path / "key.pub"))
    assert "\n" not in str(caught.value)


def test_signing_again_replaces_the_signature(signed: Path, tmp_path: Path) -> None:
    files = manifest_of(signed).files
    write_key(tmp_path / "next.pem", password="hidden")
    sign(signed, Signer(tmp_path / "next.pem", password="hidden"))
    assert manifest_of(signed).files == files
    trust = Trust(public_key=tmp_path / "next.pub")
    assert install(signed, tmp_path / "device", trust=trust, check=fine).signed


def test_certificates_are_followed_to_the_root_and_end(bundle: Path, tmp_path: Path) -> None:
    root = write_key(tmp_path / "root.pem")
    leaf = write_key(tmp_path / "leaf.pem")
    write_certificate(tmp_path / "root.crt", root, None, days=365)
    write_certificate(tmp_path / "leaf.crt", leaf, ("root", root), days=365)
    sign(bundle, Signer(tmp_path / "leaf.pem", certificate=tmp_path / "leaf.crt"))
    trust = Trust(certificates=(tmp_path / "root.crt",))
    assert install(bundle, tmp_path / "device", trust=trust, check=fine).signed

    stranger = write_key(tmp_path / "stranger.pem")
    write_certificate(tmp_path / "stranger.crt", stranger, None, days=365)
    with pytest.raises(BundleError, match="signature does not hold"):
        install(
            bundle,
            tmp_path / "other",
            trust=Trust(certificates=(tmp_path / "stranger.crt",)),
            check=fine,
        )

    write_certificate(tmp_path / "leaf.crt", leaf, ("root", root), days=-1)
    sign(bundle, Signer(tmp_path / "leaf.pem", certificate=tmp_path / "leaf.crt"))
    with pytest.raises(BundleError, match="CN=leaf was valid until"):
        install(bundle, tmp_path / "expired", trust=trust, check=fine)


def test_the_librarys_own_command_reads_the_signature(signed: Path, tmp_path: Path) -> None:
    folder = unpack(signed, tmp_path / "unpacked")
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    command += ["--signature", str(folder / SIGNATURE), "--public_key", str(tmp_path / "key.pub")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_keys_that_cannot_be_used_are_named(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("not a key")
    with pytest.raises(ConfigError, match=r"cannot sign.*bad\.pem"):
        sign(bundle, Signer(tmp_path / "bad.pem"))
    with pytest.raises(ConfigError, match="no one to trust"):
        Trust()
    write_key(tmp_path / "key.pem")
    sign(bundle, Signer(tmp_path / "key.pem"))
    folder = unpack(bundle, tmp_path / "unpacked")
    with pytest.raises(ConfigError, match="cannot read the key"):
        verify_signature(folder, Trust(public_key=tmp_path / "bad.pem"))
