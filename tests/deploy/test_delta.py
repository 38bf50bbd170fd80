import dataclasses
import json
import random
import shutil
from pathlib import Path

import pytest
from llmdeploy import BundleError
from llmdeploy.deploy import patch
from llmdeploy.deploy.archive import pack as pack_archive
from llmdeploy.deploy.bundle import unpack
from llmdeploy.deploy.contents import Contents
from llmdeploy.deploy.delta import apply, make
from llmdeploy.deploy.edge import pack
from llmdeploy.deploy.install import install
from llmdeploy.deploy.installed import Root
from llmdeploy.deploy.runtime import run_texts
from llmdeploy.deploy.signing import Signer, Trust, sign

from .conftest import TEXTS, make_contents, write_engine
from .test_bundle import flip
from .test_install import fine
from .test_signing import write_key


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def old(contents: Contents, tmp_path: Path) -> Path:
    """A bundle with a big file that hardly compresses."""
    (contents.assets / "vocab.txt").write_bytes(noise(300_000))
    return pack_in(contents, tmp_path / "old")


@pytest.fixture
def new(contents: Contents, old: Path, tmp_path: Path) -> Path:
    """Its next version: other weights, a big file with a few bytes more in its middle."""
    data = noise(300_000)
    folder = tmp_path / "next"
    folder.mkdir()
    changed = make_contents(folder, write_engine(folder / "engine", scale=1.5))
    (changed.assets / "vocab.txt").write_bytes(data[:150_000] + b"seven\n" + data[150_000:])
    return pack_in(dataclasses.replace(changed, version="1.1.0"), tmp_path / "new")


def pack_in(contents: Contents, folder: Path) -> Path:
    folder.mkdir()
    return folder / pack(contents, folder)["path"]


@pytest.fixture
def delta(old: Path, new: Path, tmp_path: Path) -> Path:
    (tmp_path / "delta").mkdir()
    return tmp_path / "delta" / make(old, new, tmp_path / "delta")["path"]


def test_a_delta_is_small_and_gives_the_new_bundle(
    old: Path, new: Path, delta: Path, tmp_path: Path
) -> None:
    assert delta.name == "tiny-1.0.0-to-1.1.0.delta.tar.zst"
    assert delta.stat().st_size < 0.1 * new.stat().st_size
    base, wanted = unpack(old, tmp_path / "base"), unpack(new, tmp_path / "wanted")
    apply(delta, base, tmp_path / "made")
    files = {p.relative_to(wanted): p.read_bytes() for p in wanted.rglob("*") if p.is_file()}
    made = tmp_path / "made"
    assert files == {p.relative_to(made): p.read_bytes() for p in made.rglob("*") if p.is_file()}


def test_a_device_takes_a_delta_as_it_takes_a_bundle(
    old: Path, new: Path, delta: Path, contents: Contents, tmp_path: Path
) -> None:
    root = tmp_path / "device"
    with pytest.raises(BundleError, match="needs an installed version"):
        install(delta, root, check=fine)
    install(old, root, check=fine)
    found = install(delta, root)
    assert (found.version, found.selftest["ok"]) == ("1.1.0", True)
    assert run_texts(root, TEXTS) == run_texts(new, TEXTS)
    assert install(delta, root, check=fine).path == found.path
    another = pack_in(dataclasses.replace(contents, version="1.0.1"), tmp_path / "another")
    install(another, tmp_path / "second", check=fine)
    with pytest.raises(BundleError, match="starts from another build"):
        install(delta, tmp_path / "second", check=fine)
    assert not list(tmp_path.glob("*/*/.*.part"))


def test_a_delta_of_a_signed_bundle_is_checked_by_its_key(
    old: Path, new: Path, tmp_path: Path
) -> None:
    write_key(tmp_path / "key.pem")
    write_key(tmp_path / "other.pem")
    for archive in (old, new):
        sign(archive, Signer(tmp_path / "key.pem"))
    delta = tmp_path / make(old, new, tmp_path)["path"]
    root = tmp_path / "device"
    install(old, root, trust=Trust(public_key=tmp_path / "key.pub"), check=fine)
    with pytest.raises(BundleError, match="signature does not hold"):
        install(delta, root, trust=Trust(public_key=tmp_path / "other.pub"), check=fine)
    assert install(delta, root, trust=Trust(public_key=tmp_path / "key.pub"), check=fine).signed


@pytest.mark.parametrize("name", ["model/vocab.txt", "model/tokenizer.json"])
@pytest.mark.parametrize("how", ["changed", "missing"])
def test_a_damaged_base_gives_no_bundle_and_is_named(
    old: Path, delta: Path, tmp_path: Path, name: str, how: str
) -> None:
    root = tmp_path / "device"
    first = Path(install(old, root, check=fine).path)
    flip(first / name) if how == "changed" else (first / name).unlink()
    with pytest.raises(BundleError, match=f"the installed '{name}' .*{how}") as caught:
        install(delta, root, check=fine)
    assert (caught.value.where, caught.value.mend) == (str(first), "install the whole bundle")
    assert Root(root).current == first.name


def test_a_hostile_delta_gives_no_bundle(old: Path, delta: Path, tmp_path: Path) -> None:
    from llmdeploy.deploy.unpack import unpack as unpack_archive

    base = unpack(old, tmp_path / "base")
    unpack_archive(delta, tmp_path / "parts")
    parts = {
        p.relative_to(tmp_path / "parts").as_posix(): p.read_bytes()
        for p in (tmp_path / "parts").rglob("*")
        if p.is_file()
    }
    plan = json.loads(parts["delta.json"])
    patched = next(iter(plan["patches"]))
    hostile: list[dict[str, object]] = [
        {"same": {**plan["same"], "x": "../../etc/passwd"}},
        {"whole": {**plan["whole"], "../x": "whole/0"}},
        {"patches": {}},
        {"patches": {**plan["patches"], patched: {"base": "manifest.json", "entry": "patches/0"}}},
        {"same": {name: "model/none" for name in plan["same"]}},
        {"unknown": 1},
    ]
    for index, change in enumerate(hostile):
        entries = {**parts, "delta.json": json.dumps({**plan, **change}).encode()}
        path = tmp_path / f"{index}.tar.zst"
        pack_archive(entries, path, first=["delta.json", "manifest.json"])
        with pytest.raises(BundleError):
            apply(path, base, tmp_path / "made")
        assert not (tmp_path / "made").exists()


def test_patches_of_all_sizes_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch, "BLOCK", 1000)
    monkeypatch.setattr(patch, "MARGIN", 500)
    old, new, made, out = (tmp_path / name for name in ("old", "new", "patch", "out"))
    for before, after in ((0, 10), (10, 0), (999, 1000), (1000, 1001), (5000, 2500), (2500, 5000)):
        old.write_bytes(noise(before))
        new.write_bytes(noise(after, seed=after % 3))
        patch.make(old, new, made)
        out.unlink(missing_ok=True)
        patch.apply(old, made, out, after)
        assert out.read_bytes() == new.read_bytes()


def test_a_patch_that_lies_is_refused(tmp_path: Path) -> None:
    old, new, made = tmp_path / "old", tmp_path / "new", tmp_path / "patch"
    old.write_bytes(noise(5000))
    new.write_bytes(noise(5000) + b"more")
    patch.make(old, new, made)
    data = made.read_bytes()
    for broken in (data[:-1], data[:4], data + data, b"\xff" * 8 + data, b"\0" * 8):
        made.write_bytes(broken)
        with pytest.raises(BundleError):
            patch.apply(old, made, tmp_path / "out", 5004)
        (tmp_path / "out").unlink(missing_ok=True)
    made.write_bytes(data)
    with pytest.raises(BundleError, match="more than it says"):
        patch.apply(old, made, tmp_path / "out", 100)


def test_of_two_models_no_delta_is_made(old: Path, contents: Contents, tmp_path: Path) -> None:
    other = pack_in(dataclasses.replace(contents, name="other"), tmp_path / "other")
    with pytest.raises(BundleError, match="other is not a version of tiny"):
        make(old, other, tmp_path)
    shutil.rmtree(tmp_path / "other")
