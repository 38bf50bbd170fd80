"""Sparse weights in an archive: smaller than Zstandard alone makes them, and the same bits again."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import zstandard
from llmdeploy import BundleError
from llmdeploy.deploy.archive import AHEAD, PACKED, Limits, pack, reading
from llmdeploy.deploy.unpack import unpack
from llmdeploy.deploy.zeros import PIECE, restored, squeezed


def two_of_four(kind: str, count: int = 1 << 20) -> bytes:
    """Random weights, the two least of each four of them zero."""
    dense = np.random.default_rng(0).normal(size=(count // 4, 4)) * 40
    ranks = np.argsort(np.argsort(abs(dense), axis=1), axis=1)
    return np.where(ranks > 1, dense, 0).astype(kind).tobytes()


ODD = np.array([0.0, -0.0, np.nan, np.inf, 1e-45, 0.0, 0.0, 0.0], "<f4").tobytes() * (PIECE // 8)
FILES = {
    "float32": two_of_four("<f4"),
    "float16": two_of_four("<f2"),
    "int8": two_of_four("i1", 1 << 22),
    "odd": ODD,
    "cut": two_of_four("<f4")[: PIECE + 13],
    "zeros": bytes(3 * PIECE + 5),
    "dense": np.random.default_rng(1).bytes(PIECE + 7),
    "mixed": np.random.default_rng(2).bytes(PIECE) + two_of_four("<f4"),
    "small": bytes(100),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_same_bits_again(tmp_path: Path, kind: str) -> None:
    source, archive = tmp_path / "w", tmp_path / "x.tar.zst"
    source.write_bytes(FILES[kind])
    pack({"w": source, "a.txt": b"a", "z.txt": b"z"}, archive)
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "w").read_bytes() == FILES[kind]
    assert (tmp_path / "out" / "z.txt").read_bytes() == b"z"
    with reading(archive) as entries:
        packed = {entry.name: entry.packed for entry in entries if list(entry.chunks())}
    assert packed == {"a.txt": False, "w": kind not in ("dense", "small"), "z.txt": False}


@pytest.mark.parametrize(("kind", "most"), [("float32", 0.88), ("float16", 0.95), ("int8", 0.95)])
def test_smaller_than_by_zstandard_alone(tmp_path: Path, kind: str, most: float) -> None:
    source, archive = tmp_path / "w", tmp_path / "x.tar.zst"
    source.write_bytes(FILES[kind])
    pack({"w": source}, archive)
    alone = len(zstandard.ZstdCompressor(level=9).compress(FILES[kind]))
    assert archive.stat().st_size < most * alone


def hostile(size: int, stored: bytes) -> bytes:
    info = tarfile.TarInfo("w")
    info.type, info.size = PACKED, AHEAD + len(stored)
    data = size.to_bytes(AHEAD, "little") + stored
    padding = bytes(-len(data) % 512)
    head = info.tobuf(tarfile.GNU_FORMAT)
    return zstandard.ZstdCompressor().compress(head + data + padding + bytes(1024))


ALL_ZERO = b"\4" + bytes(PIECE // 32)
HOSTILE = {
    "no such items": (64, b"\3" + bytes(64)),
    "items that do not divide": (33, b"\4" + bytes(64)),
    "cut short": (64, b"\0" + bytes(10)),
    "more ones than values": (64, b"\4\xff\xff" + bytes(4)),
    "more than it says": (64, b"\0" + bytes(65)),
    "nothing": (64, b""),
    "an empty file with something in it": (0, b"\0"),
    "a bomb": (200 * PIECE, ALL_ZERO * 200),
    "larger than all disks": (2**64 - 1, ALL_ZERO),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_piece_is_refused_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "hostile.tar.zst"
    archive.write_bytes(hostile(*HOSTILE[kind]))
    with pytest.raises(BundleError) as caught:
        unpack(archive, tmp_path / "out", Limits(bytes=64 << 20))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["hostile.tar.zst"]


def test_changed_bytes_give_other_bytes_or_one_error(tmp_path: Path) -> None:
    random, sound = np.random.default_rng(0), two_of_four("<f4", 1 << 12)
    (tmp_path / "w").write_bytes(sound)
    stored = np.frombuffer(b"".join(squeezed(tmp_path / "w")), np.uint8)
    assert len(stored) < len(sound)
    assert restored_from(stored.tobytes(), len(sound)) == [len(sound)]
    for _ in range(300):
        changed = stored.copy()
        changed[random.integers(0, len(stored), 3)] = random.integers(0, 256, 3)
        changed[0] = random.integers(0, 6)
        for found in restored_from(changed.tobytes(), int(random.integers(0, 1 << 15))):
            assert found <= 1 << 15


def restored_from(stored: bytes, size: int) -> list[int]:
    """The bytes that come out of a packed file, none where it is refused."""
    stream = io.BytesIO(stored)

    def read(count: int) -> bytes:
        if len(found := stream.read(count)) < count:
            raise BundleError("cut short")
        return found

    try:
        return [sum(map(len, restored(read, size, "here")))]
    except BundleError:
        return []


def test_a_header_too_short_for_its_size_is_refused(tmp_path: Path) -> None:
    info, stream = tarfile.TarInfo("w"), io.BytesIO()
    info.type, info.size = PACKED, AHEAD - 1
    stream.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(512 + 1024))
    archive = tmp_path / "hostile.tar.zst"
    archive.write_bytes(zstandard.ZstdCompressor().compress(stream.getvalue()))
    with pytest.raises(BundleError, match="not a plain file"):
        unpack(archive, tmp_path / "out")
