"""Whatever bytes come in, a reader gives a sound result or one of our errors, and nothing else."""

import contextlib
import functools
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llmdeploy import BundleError, ConfigError
from llmdeploy.deploy.archive import Limits
from llmdeploy.deploy.bundle import Manifest, manifest_of, unpack
from llmdeploy.deploy.names import Names, problem
from llmdeploy.deploy.signature import Signature
from llmdeploy.deploy.text import Encoder
from llmdeploy.deploy.unpack import unpack as unpack_archive

from .conftest import make_contents, write_engine

#: More of the same by LLMDEPLOY_FUZZ=10000.
QUICK = settings(
    max_examples=int(os.environ.get("LLMDEPLOY_FUZZ", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


TRIED: Counter[str] = Counter()


def counted(test: Callable[..., None]) -> Callable[..., None]:
    """Count the inputs that a test was really given."""

    @functools.wraps(test)
    def counting(*given: Any, **named: Any) -> None:
        TRIED[test.__name__] += 1
        test(*given, **named)

    return counting


@pytest.fixture(scope="module", autouse=True)
def told(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        print(f"\n{sum(TRIED.values())} inputs to {len(TRIED)} readers: {dict(TRIED)}")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from llmdeploy.deploy.edge import pack

    folder = tmp_path_factory.mktemp("sound")
    contents = make_contents(folder, write_engine(folder / "engine"))
    return folder / pack(contents, folder)["path"]


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[float, int, bytes]]:
    """A few edits of a byte string: where (a share of its length), how many go, what comes."""
    one = st.tuples(st.floats(0, 1), st.integers(0, 600), st.binary(max_size=600))
    return draw(st.lists(one, min_size=1, max_size=4))


def edited(data: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for place, gone, come in changes:
        at = int(place * len(data))
        data = data[:at] + come + data[at + gone :]
    return data


def try_archive(data: bytes) -> None:
    """Unpack `data`; all that is ever written is one folder, and only if it is whole."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "x.tar.zst").write_bytes(data)
        for read in (
            lambda: unpack(root / "x.tar.zst", root / "inner" / "out"),
            lambda: unpack_archive(
                root / "x.tar.zst", root / "inner" / "any", Limits(bytes=1 << 24)
            ),
        ):
            try:
                read()
            except BundleError:
                continue
        assert {path.name for path in root.iterdir()} <= {"x.tar.zst", "inner"}
        inner = root / "inner"
        assert {path.name for path in inner.iterdir()} <= {"out", "any"} if inner.exists() else True
        if (inner / "out").exists():
            manifest = Manifest.load(inner / "out")
            found = {
                p.relative_to(inner / "out").as_posix()
                for p in (inner / "out").rglob("*")
                if p.is_file()
            }
            assert found - {"bundle.sig"} == {"manifest.json", *manifest.files}


@QUICK
@given(changes=edits())
@counted
def test_a_changed_archive(sound: Path, changes: list[tuple[float, int, bytes]]) -> None:
    try_archive(edited(sound.read_bytes(), changes))


@QUICK
@given(changes=edits())
@counted
def test_a_changed_tar_under_sound_compression(
    sound: Path, changes: list[tuple[float, int, bytes]]
) -> None:
    tar = zstandard.ZstdDecompressor().decompressobj().decompress(sound.read_bytes())
    try_archive(zstandard.ZstdCompressor().compress(edited(tar, changes)))


@QUICK
@given(data=st.binary(max_size=4096))
@counted
def test_an_archive_of_anything(data: bytes) -> None:
    try_archive(data)
    try_archive(zstandard.ZstdCompressor().compress(data))


NAMES = st.sampled_from(["a", "A", "a/b", "../x", "/x", "a/../../x", "", ".", "a\\b", "C:x"])
KINDS = st.sampled_from([b"0", b"\0", b"1", b"2", b"3", b"5", b"6", b"7", b"L", b"S", b"g", b"x"])
ENTRIES = st.tuples(
    NAMES | st.text(max_size=60), KINDS, st.binary(max_size=700), st.integers(-2, 1 << 40)
)


@QUICK
@given(entries=st.lists(ENTRIES, max_size=5), lie=st.booleans())
@counted
def test_a_tar_of_strange_entries_with_right_checksums(
    entries: list[tuple[str, bytes, bytes, int]], lie: bool
) -> None:
    tar = io.BytesIO()
    for name, kind, content, size in entries:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "../../x"
        info.size = size if lie else len(content)
        with contextlib.suppress(ValueError, OverflowError):
            tar.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
            tar.write(content + bytes(-len(content) % 512))
    try_archive(zstandard.ZstdCompressor().compress(tar.getvalue() + bytes(1024)))


JSON: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from(["../x", "a/b", "0" * 64, "model/io.json", "batch", "int64"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4)
    ),
    max_leaves=12,
)


@QUICK
@given(changes=edits(), value=JSON, choose=st.randoms(use_true_random=False))
@counted
def test_a_changed_manifest(
    sound: Path, changes: list[tuple[float, int, bytes]], value: Any, choose: Any
) -> None:
    text = manifest_of(sound).encoded()
    tree = json.loads(text)
    replace(tree, value, choose)
    for candidate in (edited(text, changes), json.dumps(tree).encode(), json.dumps(value).encode()):
        try:
            found = Manifest.parse(candidate, Path("manifest.json"))
        except BundleError:
            continue
        names = Names()
        assert all(problem(name) is None and names.add(name) is None for name in found.files)
        assert Manifest.parse(found.encoded(), Path("manifest.json")) == found


@QUICK
@given(changes=edits(), value=JSON, choose=st.randoms(use_true_random=False))
@counted
def test_a_changed_io_json(
    sound: Path, changes: list[tuple[float, int, bytes]], value: Any, choose: Any
) -> None:
    text = (sound.parent / "engine" / "io.json").read_bytes()
    tree = json.loads(text)
    replace(tree, value, choose)
    with tempfile.TemporaryDirectory() as temporary:
        for candidate in (
            edited(text, changes),
            json.dumps(tree).encode(),
            json.dumps(value).encode(),
        ):
            (Path(temporary) / "io.json").write_bytes(candidate)
            with contextlib.suppress(ConfigError):
                Signature.load(Path(temporary))


@QUICK
@given(changes=edits(), value=JSON, choose=st.randoms(use_true_random=False))
@counted
def test_a_changed_tokenizer(
    sound: Path, changes: list[tuple[float, int, bytes]], value: Any, choose: Any
) -> None:
    engine = sound.parent / "engine"
    text = (engine / "tokenizer.json").read_bytes()
    tree = json.loads(text)
    replace(tree, value, choose)
    with tempfile.TemporaryDirectory() as temporary:
        shutil.copy(engine / "io.json", temporary)
        for candidate in (edited(text, changes), json.dumps(tree).encode()):
            (Path(temporary) / "tokenizer.json").write_bytes(candidate)
            with contextlib.suppress(ConfigError):
                feed = Encoder(Path(temporary)).encode(["the train", "today"], max_length=9)
                assert feed["input_ids"].shape == feed["attention_mask"].shape


def replace(tree: Any, value: Any, choose: Any) -> None:
    """Put `value` somewhere into a tree of dicts and lists."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            return
        key = choose.choice(keys)
        if not isinstance(tree[key], dict | list) or not tree[key] or choose.random() < 0.3:
            tree[key] = value
            return
        tree = tree[key]


@QUICK
@given(name=st.text(max_size=120))
@counted
def test_a_name_that_is_fit_stays_inside(name: str) -> None:
    if problem(name) is None:
        root = Path("/srv/bundle")
        assert (root / name).resolve().is_relative_to(root)
        assert len(name.encode()) <= 100


@settings(max_examples=200, deadline=None)
@given(
    names=st.lists(st.text(st.sampled_from("aAbB/és\u017fS"), min_size=1, max_size=6), max_size=6)
)
def test_names_that_do_not_collide_are_files_of_their_own(names: list[str]) -> None:
    known, kept = Names(), [name for name in names if problem(name) is None]
    kept = [name for name in kept if known.add(name) is None]
    folded = [name.casefold() for name in kept]
    assert len(set(folded)) == len(folded)
    for one in folded:
        assert not any(other.startswith(one + "/") for other in folded)
