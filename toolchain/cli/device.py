"""The verbs for bundles that are made: sign, delta, push, pull, install, rollback; and Triton's."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .. import options as opt
from .tools import say


def sign(
    bundle: Annotated[Path, typer.Argument(help="A bundle's archive; it is replaced.")],
    key: Annotated[Path, typer.Option("--key", help="The private key (PEM, elliptic curve).")],
    certificate: opt.SignCertificate = None,
    chain: opt.SignChain = None,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Sign every file of a bundle, and its provenance; LLMDEPLOY_KEY_PASSWORD opens the key."""
    from ..signed import sign as put

    found = put(bundle, key, certificate, chain or [])
    say(found, json, quiet, lambda: f"signed {bundle}")


def delta(
    old: Annotated[Path, typer.Argument(help="The bundle that devices have.")],
    new: Annotated[Path, typer.Argument(help="The bundle that they shall have.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write into.")],
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write what changed between two bundles as an archive that `install` takes."""
    from ...deploy.delta import make

    output.mkdir(parents=True, exist_ok=True)
    found = make(old, new, output)
    say(found, json, quiet, lambda: str(output / found["path"]))


def publish(
    packed: Annotated[Path, typer.Argument(help="A packed Triton bundle, or its `models`.")],
    repository: Annotated[Path, typer.Argument(help="The repository that a server reads.")],
    keep: Annotated[int, typer.Option(min=1, help="Versions that stay loaded.")] = 2,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Add a version to a Triton repository that runs; says what to load, in order."""
    from ...deploy.triton_versions import publish as put

    inner = packed / "models"
    found = put(inner if inner.is_dir() else packed, repository, keep=keep)
    say({"load": found}, json, quiet, lambda: "\n".join(found))


def switch(
    repository: Annotated[Path, typer.Argument(help="The repository that a server reads.")],
    model: Annotated[str, typer.Argument(help="The ensemble.")],
    version: Annotated[int, typer.Argument(min=1, help="A version that is there.")],
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Have a Triton ensemble run another version that is there: an update, or the way back."""
    from ...deploy.triton_versions import switch as turn

    turn(repository, model, version)
    found = {"load": [model], "version": version}
    say(found, json, quiet, lambda: f"load {model} again: it runs version {version}")


def install(
    bundle: Annotated[Path, typer.Argument(help="A bundle's archive.")],
    root: Annotated[Path, typer.Option("--root", help="Where versions are kept on this device.")],
    key: opt.PublicKey = None,
    certificate: opt.Certificates = None,
    allow_downgrade: Annotated[bool, typer.Option(help="Take an older version too.")] = False,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Check a bundle, unpack it, try it, and only then make it current."""
    from ...deploy.install import install as put

    trust = opt.trust(key, certificate)
    found = put(bundle, root, trust=trust, allow_downgrade=allow_downgrade)
    say(asdict(found), json, quiet, lambda: f"current is {found.name} {found.version}")


def rollback(
    root: Annotated[Path, typer.Option("--root", help="Where versions are kept on this device.")],
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Go back to the version before the current one."""
    from ...deploy.install import rollback as back

    found = back(root)
    say(asdict(found), json, quiet, lambda: f"current is {found.name} {found.version}")


def push(
    bundle: Annotated[Path, typer.Argument(help="A bundle's archive, or its OCI layout.")],
    reference: Annotated[str, typer.Argument(help="REGISTRY/NAME[:TAG]; by default its version.")],
    plain_http: Annotated[bool, typer.Option(help="HTTP, for a registry of one's own.")] = False,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Push a bundle to a registry of containers, as a CNCF ModelPack image."""
    from ...deploy.oci_registry import push as put

    found = put(bundle, reference, plain=plain_http)
    say(found, json, quiet, lambda: f"{found['reference']}@{found['digest']}")


def pull(
    reference: Annotated[str, typer.Argument(help="REGISTRY/NAME:TAG, or @sha256:DIGEST.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write into.")],
    plain_http: Annotated[bool, typer.Option(help="HTTP, for a registry of one's own.")] = False,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Pull a bundle from a registry as the archive that `install` takes."""
    from ...deploy.oci_registry import pull as get

    found = get(reference, output, plain=plain_http)
    say(found, json, quiet, lambda: str(found["path"]))
