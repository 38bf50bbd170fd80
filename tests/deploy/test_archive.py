import io
import os
import resource
import tarfile
import time
from pathlib import Path

import pytest
import zstandard
from llmdeploy import BundleError
from llmdeploy.deploy.archive import Limits, pack, reading
from llmdeploy.deploy.bundle import manifest_of
from llmdeploy.deploy.unpack import unpack

FILES = {"b/two.txt": b"two" * 1000, "a.txt": b"", "b/one.bin": bytes(range(256)) * 9}


def squeeze(tar: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(tar)


def tar_of(*entries: tuple[str, bytes | str, bytes]) -> bytes:
    """A tar as a stranger writes it: name, type or link target, content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type = kind if isinstance(kind, bytes) else tarfile.SYMTYPE
            info.linkname = "" if isinstance(kind, bytes) else kind
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "hostile.tar.zst"
    path.write_bytes(data)
    return path


def test_comes_back_as_it_went_in(tmp_path: Path) -> None:
    pack(FILES, tmp_path / "x.tar.zst", first=["b/two.txt"])
    unpack(tmp_path / "x.tar.zst", tmp_path / "out")
    found = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert found == FILES


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    source = tmp_path / "src.bin"
    archives: list[bytes] = []
    for umask, age in ((0o022, 0), (0o077, 10_000)):
        old = os.umask(umask)
        try:
            source.unlink(missing_ok=True)
            source.write_bytes(b"weights" * 5000)
            os.utime(source, (time.time() - age,) * 2)
            pack({**FILES, "w.bin": source}, tmp_path / "x.tar.zst")
        finally:
            os.umask(old)
        archives.append((tmp_path / "x.tar.zst").read_bytes())
    assert archives[0] == archives[1]


def test_tar_itself_reads_it(tmp_path: Path) -> None:
    pack(FILES, tmp_path / "x.tar.zst")
    plain = (
        zstandard.ZstdDecompressor()
        .decompressobj()
        .decompress((tmp_path / "x.tar.zst").read_bytes())
    )
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        assert tar.getnames() == ["a.txt", "b/one.bin", "b/two.txt"]
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in tar} == {(0, 0, 0, 0o644, "")}


def test_more_than_8_gib_fits_a_header(tmp_path: Path) -> None:
    from llmdeploy.deploy.archive import _header

    info = tarfile.TarInfo.frombuf(_header("model.onnx.data", 30 << 30), "utf-8", "strict")
    assert info.size == 30 << 30


HOSTILE = {
    "absolute": tar_of(("/etc/passwd", b"0", b"x")),
    "parent": tar_of(("../x", b"0", b"x")),
    "parent-inside": tar_of(("a/../../x", b"0", b"x")),
    "dot": tar_of(("a/./x", b"0", b"x")),
    "backslash": tar_of(("..\\x", b"0", b"x")),
    "drive": tar_of(("C:x", b"0", b"x")),
    "device-name": tar_of(("a/NUL.txt", b"0", b"x")),
    "control": tar_of(("a\nb", b"0", b"x")),
    "right-to-left": tar_of(("a\u202eb", b"0", b"x")),
    "trailing-dot": tar_of(("a./x", b"0", b"x")),
    "symlink": tar_of(("a", "/etc", b"")),
    "hardlink": tar_of(("a", tarfile.LNKTYPE, b"")),
    "device": tar_of(("a", tarfile.CHRTYPE, b"")),
    "fifo": tar_of(("a", tarfile.FIFOTYPE, b"")),
    "folder": tar_of(("a", tarfile.DIRTYPE, b"")),
    "long-name": tar_of(("a" * 300, b"0", b"x")),
    "duplicate": tar_of(("a", b"0", b"x"), ("a", b"0", b"y")),
    "case": tar_of(("a/File", b"0", b"x"), ("a/fILE", b"0", b"y")),
    "folder-case": tar_of(("a/one", b"0", b"x"), ("A/two", b"0", b"y")),
    "normal-form": tar_of(("caf\u00e9", b"0", b"x"), ("cafe\u0301", b"0", b"y")),
    "file-and-folder": tar_of(("a", b"0", b"x"), ("a/b", b"0", b"y")),
    "folder-and-file": tar_of(("a/b", b"0", b"x"), ("a", b"0", b"y")),
    "no-end": tar_of(("a", b"0", b"x"))[:1024],
    "no-checksum": b"\1" * 512 + bytes(1024),
    "empty": b"",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    archive = write(tmp_path, squeeze(HOSTILE[kind]))
    with pytest.raises(BundleError) as caught:
        unpack(archive, tmp_path / "in" / "out")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["hostile.tar.zst", "in"]


def test_data_after_the_end_is_refused(tmp_path: Path) -> None:
    tar = tar_of(("a", b"0", b"x"))[:2048]
    for data in (squeeze(tar + b"x" * 512), squeeze(tar) + b"junk", squeeze(tar) * 2):
        with pytest.raises(BundleError, match=r"after the end|not a sound"):
            unpack(write(tmp_path, data), tmp_path / "out")


def test_something_behind_a_file_is_refused(tmp_path: Path) -> None:
    tar = bytearray(tar_of(("a", b"0", b"x")))
    tar[700] = 1
    with pytest.raises(BundleError, match="hidden behind"):
        unpack(write(tmp_path, squeeze(bytes(tar))), tmp_path / "out")


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    pack(FILES, tmp_path / "x.tar.zst")
    whole = (tmp_path / "x.tar.zst").read_bytes()
    for size in range(len(whole)):
        with pytest.raises(BundleError):
            unpack(write(tmp_path, whole[:size]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bomb_is_stopped_before_it_is_written(tmp_path: Path) -> None:
    head = tarfile.TarInfo("zeros")
    head.size = 1 << 40
    compressor = zstandard.ZstdCompressor().compressobj()
    data = compressor.compress(head.tobuf(tarfile.GNU_FORMAT))
    data += compressor.compress(bytes(256 << 20)) + compressor.flush()
    with pytest.raises(BundleError, match="larger than allowed"):
        unpack(write(tmp_path, data), tmp_path / "out")


def test_a_window_beyond_ours_is_refused(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(bytes(1024)) + compressor.flush()
    with pytest.raises(BundleError, match="not a sound archive"):
        unpack(write(tmp_path, data), tmp_path / "out")


def test_too_many_entries_are_refused(tmp_path: Path) -> None:
    archive = write(tmp_path, squeeze(tar_of(*((str(i), b"0", b"") for i in range(20)))))
    with pytest.raises(BundleError, match="more than 9 entries"):
        unpack(archive, tmp_path / "out", Limits(entries=9))


def test_a_check_that_fails_leaves_nothing(tmp_path: Path) -> None:
    pack(FILES, tmp_path / "x.tar.zst")

    def refuse(_: Path) -> None:
        raise BundleError("no")

    with pytest.raises(BundleError, match="no"):
        unpack(tmp_path / "x.tar.zst", tmp_path / "out", check=refuse)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar.zst"]


def test_a_write_that_fails_is_no_fault_of_the_archive(tmp_path: Path) -> None:
    pack({"a": b"x" * 5000}, tmp_path / "x.tar.zst")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(BundleError, match=r"cannot unpack: .*/out, free space"):
            unpack(tmp_path / "x.tar.zst", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(BundleError, match=r"cannot read: No such file.*none\.tar\.zst"):
        manifest_of(tmp_path / "none.tar.zst")


def test_what_is_not_a_plain_file_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name, source in (("a", tmp_path / "link"), ("a", tmp_path), ("../a", tmp_path / "x")):
        with pytest.raises(BundleError):
            pack({name: source}, tmp_path / "x.tar.zst")
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_the_first_entry_is_read_without_the_rest(tmp_path: Path) -> None:
    pack(FILES, tmp_path / "x.tar.zst", first=["a.txt"])
    with reading(tmp_path / "x.tar.zst") as entries:
        entry = next(entries)
        assert (entry.name, b"".join(entry.chunks())) == ("a.txt", b"")
