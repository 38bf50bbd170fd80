"""Bundles in a registry of containers: pushed and pulled blob by blob, by the OCI distribution API.

`oras` finds the credentials (Docker's own configuration) and answers a registry's challenges;
blobs are sent and read in pieces, and every digest is checked on both ways.
"""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import BundleError, ConfigError, Error, MissingError
from . import oci
from .bundle import Manifest, digest
from .places import ARCHIVE

#: Bytes that are sent at once.
PIECE = 16 << 20
#: The greatest image manifest that is read.
MAX_IMAGE = 4 << 20


def push(bundle: Path, reference: str, *, plain: bool = False) -> dict[str, Any]:
    """Push a bundle's archive, or a layout, to REGISTRY/NAME[:TAG]; what was sent.

    Without a tag it is the bundle's version. `plain` speaks HTTP, for a registry of one's own.

    Raises:
        ConfigError: no such bundle, or the reference is none.
        BundleError: the bundle is not sound, or the registry refuses it.
        MissingError: oras is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="llmdeploy-") as temporary:
        layout = _layout(bundle, Path(temporary))
        descriptor, image = oci.image_of(layout)
        layers = oci.layers_of(image, bundle)
        manifest = Manifest.parse(oci.blob(layout, layers["manifest.json"]).read_bytes(), bundle)
        remote = Remote(reference, plain, manifest.version)
        config = oci.read_json(image, bundle)["config"]
        sent = [
            remote.send(oci.blob(layout, one), one["digest"]) for one in (config, *layers.values())
        ]
        remote.tag(image, descriptor["digest"])
    return {
        "reference": str(remote),
        "digest": descriptor["digest"],
        "blobs": len(sent),
        "sent": sum(size > 0 for size in sent),
        "sent_bytes": sum(sent),
    }


def pull(reference: str, folder: Path, *, plain: bool = False) -> dict[str, Any]:
    """Pull REGISTRY/NAME:TAG (or @sha256:...) as the bundle's archive into `folder`.

    Raises:
        ConfigError: the reference is none, or names no tag.
        BundleError: it is no bundle, or not the bytes that its digests say.
        MissingError: oras is not installed.
    """
    remote = Remote(reference, plain)
    image = remote.image()
    layers = oci.layers_of(image, reference)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".llmdeploy-", dir=folder) as temporary:
        files: dict[str, Path] = {}
        for index, (name, layer) in enumerate(layers.items()):
            files[name] = Path(temporary) / str(index)
            remote.receive(layer, files[name])
        made = oci.archived(files, Path(temporary))
        archive = made.replace(folder / made.name)
    sha256 = hashlib.sha256(image).hexdigest()
    return {
        "path": str(archive),
        "sha256": digest(archive),
        "bytes": archive.stat().st_size,
        "digest": f"sha256:{sha256}",
    }


def _layout(bundle: Path, temporary: Path) -> Path:
    if bundle.is_dir() and oci.is_layout(bundle):
        return bundle
    if not bundle.is_file() or not bundle.name.endswith(ARCHIVE):
        raise ConfigError("no bundle there", where=bundle, mend=f"give NAME{ARCHIVE} or a layout")
    oci.from_archive(bundle, temporary)
    return temporary / "layout"


class Remote:
    """One repository of a registry, at a tag or a digest."""

    def __init__(self, reference: str, plain: bool, tag: str = "") -> None:
        container, provider = _library()
        try:
            self._container: Any = container.Container(reference)
        except Exception as error:
            mend = "write REGISTRY/NAME:TAG"
            raise ConfigError("not the name of an image", where=reference, mend=mend) from error
        last = reference.rpartition("/")[2]
        if ":" not in last and "@" not in last:
            if not tag:
                raise ConfigError("no tag is named", where=reference, mend="add :VERSION")
            self._container.tag = tag.replace("+", "_")
        self._client: Any = provider.Registry(insecure=plain)
        self._scheme = "http" if plain else "https"
        self._client.auth.load_configs(self._container)

    def __str__(self) -> str:
        """The full name."""
        return str(self._container.uri)

    def send(self, path: Path, digest_: str) -> int:
        """Upload a blob in pieces, unless the registry has it; the bytes that were sent."""
        if self._ask("HEAD", self._container.get_blob_url(digest_), (200, 404)).status_code == 200:
            return 0
        begun = self._ask("POST", self._container.upload_blob_url(), (202,))
        place, sent = self._next(begun), 0
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                headers = {
                    "Content-Type": "application/octet-stream",
                    "Content-Range": f"{sent}-{sent + len(piece) - 1}",
                }
                place = self._next(self._ask("PATCH", place, (202,), data=piece, headers=headers))
                sent += len(piece)
        mark = "&" if "?" in place else "?"
        done = self._ask("PUT", f"{place}{mark}digest={digest_}", (201,))
        self._same(done, digest_)
        return sent

    def tag(self, image: bytes, digest_: str) -> None:
        """Put the image's manifest, byte for byte, under the tag."""
        headers = {"Content-Type": oci.IMAGE}
        done = self._ask("PUT", self._container.manifest_url(), (201,), data=image, headers=headers)
        self._same(done, digest_)

    def image(self) -> bytes:
        """The image's manifest, when it is the bytes that were asked for.

        Raises:
            BundleError: there is none, or it has another digest.
        """
        headers = {"Accept": oci.IMAGE}
        answer = self._ask("GET", self._container.manifest_url(), (200,), headers=headers)
        if len(answer.content) > MAX_IMAGE:
            raise BundleError("the image's manifest is too large", where=str(self))
        sha256 = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
        self._same(answer, sha256)
        if self._container.digest and self._container.digest.lstrip("@") != sha256:
            raise BundleError("the registry gave another image", where=str(self))
        return answer.content

    def receive(self, layer: Mapping[str, Any], path: Path) -> None:
        """Download a layer, when it is of the size and the digest that the image says.

        Raises:
            BundleError: it is not.
        """
        sha256, size = oci.described(layer, str(self))
        url = self._container.get_blob_url(f"sha256:{sha256}")
        answer = self._ask("GET", url, (200,), stream=True)
        found, left = hashlib.sha256(), size
        with answer, path.open("wb") as file:
            for piece in answer.iter_content(1 << 20):
                left -= len(piece)
                if left < 0:
                    break
                found.update(piece)
                file.write(piece)
        if left or found.hexdigest() != sha256:
            raise BundleError("the registry gave other bytes than the image says", where=str(self))

    def _ask(self, method: str, url: str, wanted: tuple[int, ...], **more: Any) -> Any:
        full = url if "://" in url else f"{self._scheme}://{url}"
        # Without the library's minute of trying again: a pipeline does that by itself.
        request = type(self._client).do_request.__wrapped__
        try:
            answer = request(self._client, full, method, **more)
        except Error:
            raise
        except Exception as error:
            what = f"the registry cannot be asked: {' '.join(str(error).split())[:200]}"
            raise BundleError(what, where=str(self), mend="see `docker login`") from error
        if answer.status_code not in wanted:
            what = f"the registry answers {answer.status_code} to {method}"
            raise BundleError(what, where=str(self), mend=_why(answer))
        return answer

    def _next(self, answer: Any) -> str:
        place: str = self._client._get_location(answer, self._container)
        if not place:
            raise BundleError("the registry says not where to send to", where=str(self))
        return place

    def _same(self, answer: Any, digest_: str) -> None:
        given = answer.headers.get("Docker-Content-Digest", digest_)
        if given != digest_:
            raise BundleError(f"the registry has {given} of {digest_}", where=str(self))


def _why(answer: Any) -> str:
    try:
        return str(answer.json()["errors"][0]["message"])[:200]
    except Exception:  # an answer of no use is no second error
        return ""


def _library() -> tuple[Any, Any]:
    try:
        from oras import container, provider
    except ImportError as error:
        raise MissingError("oras is not installed", mend="pip install 'llmdeploy[oci]'") from error
    return container, provider
