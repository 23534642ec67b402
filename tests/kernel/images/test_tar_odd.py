"""Archives that no writer of today makes: what every reader takes is unpacked, the rest is refused by name and reason."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from pathlib import Path

import pytest

from runtime_core.errors import DataLoss, InvalidArgument, ResourceExhausted, TrivetError
from runtime_core.images.unpack import unpack
from runtime_core.launcher.client import Launcher

_LIMIT = 1 << 30


def header(name: bytes = b"f", kind: bytes = b"0", **fields: bytes) -> bytes:
    """A ustar header; `fields` are written as they are at their places."""
    places = {
        "mode": (100, 8, b"0000644\0"), "uid": (108, 8, b"0000000\0"), "gid": (116, 8, b"0000000\0"),
        "size": (124, 12, b"00000000000\0"), "mtime": (136, 12, b"00000000000\0"), "link": (157, 100, b""),
        "magic": (257, 8, b"ustar\00000"), "major": (329, 8, b""), "minor": (337, 8, b""), "prefix": (345, 167, b""),
    }  # fmt: skip
    block = bytearray(512)
    block[: len(name)] = name
    block[156:157] = kind
    for key, (at, length, value) in places.items():
        block[at : at + length] = fields.pop(key, value).ljust(length, b"\0")
    stated = fields.pop("checksum", b"")
    block[148:156] = stated or b" " * 8
    if not stated:
        block[148:156] = b"%06o\0 " % sum(block)
    assert not fields
    return bytes(block)


def file(content: bytes, name: bytes = b"f", kind: bytes = b"0", **fields: bytes) -> bytes:
    return header(name, kind, **{"size": b"%011o\0" % len(content), **fields}) + content.ljust(
        -(-len(content) // 512) * 512, b"\0"
    )


def pax(kind: bytes = b"x", **records: bytes) -> bytes:
    """An extended header; "_" in a key stands for "."."""
    return raw_pax(*((key.replace("__", "."), value) for key, value in records.items()), kind=kind)


def raw_pax(*records: tuple[str, bytes], kind: bytes = b"x") -> bytes:
    content = b""
    for key, value in records:
        body = b" " + key.encode() + b"=" + value + b"\n"
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length += 1
        content += str(length).encode() + body
    return file(content, b"PaxHeaders/f", kind)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    target = tmp_path / "root"
    target.mkdir()
    return target


def _unpack(archive: bytes, root: Path, launcher: Launcher, limit: int = _LIMIT) -> None:
    blob = root.parent / "blob"
    blob.write_bytes(archive)
    unpack(blob, f"sha256:{hashlib.sha256(archive).hexdigest()}", str(root), [], launcher, limit=limit)


_FILE = file(b"text")
_AFTER = file(b"after", b"after")
_ENDS = "one block of zeroes, and something else"
_TAKEN: dict[str, bytes] = {
    "octal ended by a blank": file(b"text", size=b"4 \0\0", mode=b"644 \0\0\0\0", uid=b"  7 \0\0\0\0"),
    "octal with bytes after a NUL": file(b"text", size=b"4\0garbage\x80\xff", mode=b"644\0zzz", uid=b"7\0\x99abc"),
    "octal with blanks and NULs before": file(b"text", size=b"\0\0\0\0    4\0", uid=b"      7"),
    "octal that fills the field": file(b"text", size=b"000000000004", uid=b"00000007"),
    "base-256": file(b"text", size=b"\x80" + bytes(10) + b"\x04", uid=b"\x80" + bytes(6) + b"\x07"),
    "an empty field": file(b"text", gid=b"", mtime=b"        "),
    "the type of old tars": file(b"text", kind=b"\0", magic=b""),
    "a contiguous file": file(b"text", kind=b"7"),
    "a type that POSIX does not know": file(b"text", kind=b"Z"),
    "a directory of an old tar": header(b"d/", b"\0", magic=b"") + file(b"text", b"d/../f"),
    "a directory with a size": header(b"d", b"5", size=b"00000001000\0") + _FILE,
    "a symbolic link with a size": header(b"l", b"2", link=b"f", size=b"00000001000\0") + _FILE,
    "a FIFO with a size": header(b"p", b"6", size=b"00000001000\0") + _FILE,
    "a hard link with a size": _FILE + header(b"h", b"1", link=b"f", size=b"00000000004\0"),
    "a hard link with a pax size": _FILE + pax(size=b"4") + header(b"h", b"1", link=b"f"),
    "a size by pax alone": pax(size=b"4") + file(b"text", size=b"00000000000\0"),
    "empty pax values": pax(path=b"", size=b"", mtime=b"", uid=b"", linkpath=b"", gid=b"") + _FILE,
    "a global value taken back": pax(b"g", path=b"other") + pax(path=b"") + _FILE + pax(b"g", path=b""),
    "a name and a link of pax": pax(path=b"f", linkpath=b"x") + file(b"text", b"short"),
    "a name of GNU": file(b"f\0", b"././@LongLink", b"L", magic=b"ustar  \0") + file(b"text", b"short", magic=b"ustar  \0"),
    "a global header with a comment": pax(b"g", comment=b"b" * 40) + _FILE,
    "a pax header of Solaris": pax(b"X", path=b"f") + file(b"text", b"x"),
    "a pax header with NULs behind it": file(raw_pax(("path", b"f"))[512:521].rstrip(b"\0") + bytes(8), b"p", b"x") + file(b"text"),
    "unknown pax keys": raw_pax(("LIBARCHIVE.creationtime", b"1.5"), ("VENDOR.x", b""), ("hdrcharset", b"BINARY")) + _FILE,
    "a prefix without a version": file(b"text", b"f", prefix=b".", magic=b"ustar\0  "),
    "a prefix of star": file(b"text", b"f", prefix=b"." + bytes(130) + b"01234567012\0" * 2 + bytes(8) + b"tar\0"),
    "times of GNU where a prefix would be": file(b"text", b"f", prefix=b"01234567012\0" * 2, magic=b"ustar  \0"),
    "a volume's label": header(b"label", b"V") + _FILE,
    "a directory of an incremental archive": file(b"Yf\0\0", b"d/", b"D", magic=b"ustar  \0") + _FILE,
    "dots and slashes in names": file(b"text", b"././/a/..//./f"),
    "an absolute name": file(b"text", b"/f"),
    "no end": _FILE,
    _ENDS: _FILE + bytes(512) + b"else" * 128,
    "attributes that only files have": raw_pax(("SCHILY.xattr.user.a", b"1")) + header(b"l", b"2", link=b"x")
    + raw_pax(("SCHILY.xattr.user.a", b"1")) + header(b"p", b"6")
    + raw_pax(("SCHILY.xattr.user.a", b"1")) + header(b"c", b"3", major=b"0000001\0", minor=b"0000003\0") + _FILE,
    "attributes that are not an image's": raw_pax(("SCHILY.xattr.trusted.overlay.opaque", b"y"), ("SCHILY.xattr.x", b"")) + _FILE,
    "an entry of the root": header(b"./", b"5", mode=b"0000755\0") + _FILE,
    "an entry without a name": file(b"nothing", b"", prefix=b"") + _FILE,
}  # fmt: skip


@pytest.mark.parametrize("what", _TAKEN)
def test_what_readers_take(what: str, root: Path, launcher: Launcher) -> None:
    """A file `f` with "text" comes of each, and the member behind it."""
    _unpack(_TAKEN[what] + _AFTER, root, launcher)
    assert (root / "f").read_bytes() == b"text"
    if what != _ENDS:
        assert (root / "after").read_bytes() == b"after"


@pytest.mark.parametrize(
    ("value", "time"),
    [
        (b"-1.5", -1_500_000_000), (b"-1.9", -1_900_000_000), (b"-0.5", -500_000_000), (b"-2", -2_000_000_000),
        (b"1.5", 1_500_000_000), (b"0.000000001", 1), (b"1.", 1_000_000_000), (b".5", 500_000_000),
        (b"1.0000000019", 1_000_000_001), (b"1.9999999999999999999", 1_999_999_999), (b"2147483648.25", 2_147_483_648_250_000_000),
    ],
)  # fmt: skip
def test_times_of_pax(value: bytes, time: int, root: Path, launcher: Launcher) -> None:
    """Before the epoch too: -1.5 is the second -2 and half of one."""
    _unpack(pax(mtime=value) + _FILE + pax(mtime=value) + header(b"d", b"5"), root, launcher)
    assert [(root / name).stat().st_mtime_ns for name in ("f", "d")] == [time, time]


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (pax(uid=b"4294967296") + _FILE, "'f': uid 4294967296"),
        (pax(uid=b"4294967295") + _FILE, "'f': uid 4294967295"),  # chown(2) would leave the owner as it is
        (pax(gid=b"-1") + _FILE, "'f': gid -1"),
        (pax(uid=b"99999999999999999999") + _FILE, "'f': pax uid"),
        (pax(uid=b"9" * 5000) + _FILE, "'f': pax uid"),
        (pax(uid="١٢".encode()) + _FILE, "'f': pax uid"),
        (pax(gid=b"1_0") + _FILE, "'f': pax gid"),
        (pax(uid=b" 1") + _FILE, "'f': pax uid"),
        (pax(size=b"-1") + _FILE, "'f': size -1"),
        (pax(size=b"4x") + _FILE, "'f': pax size"),
        (pax(size=b"9223372036854775808") + _FILE, "'f': pax size"),
        (pax(mtime=b"99999999999999999999") + _FILE, "'f': pax mtime"),
        (pax(mtime=b"-9223372036854775809") + _FILE, "'f': pax mtime"),
        (pax(mtime=b"1e5") + _FILE, "'f': pax mtime"),
        (pax(mtime=b"nan") + _FILE, "'f': pax mtime"),
        (pax(mtime=b"1.5.5") + _FILE, "'f': pax mtime"),
        (pax(mtime=b".") + _FILE, "'f': pax mtime"),
        (pax(mtime=b"--1") + _FILE, "'f': pax mtime"),
        (pax(atime=b"x") + _FILE, "'f': pax atime"),
        (pax(ctime=b"99999999999999999999") + _FILE, "'f': pax ctime"),
        (pax(path=b"a\0b") + _FILE, "'f': pax path contains a NUL"),
        (pax(uname=b"a\0b") + _FILE, "'f': pax uname contains a NUL"),
        (raw_pax(("SCHILY.xattr.user.a\0b", b"1")) + _FILE, "'f': the name of an extended attribute"),
        (raw_pax(("SCHILY.xattr.user." + "n" * 300, b"1")) + _FILE, "'f': "),
        (file(b"text", uid=b"\x80" + b"\xff" * 7), "'f': uid 7205"),
        (file(b"text", gid=b"\xff" * 8), "'f': gid -1"),
        (file(b"text", size=b"\xff" * 12), "'f': size -1"),
        (file(b"text", mtime=b"\x80" + b"\xff" * 11), "'f': mtime"),
        (file(b"text", mode=b"999"), "'f': the header's mode b'999'"),
        (file(b"text", size=b"-4"), "'f': the header's size"),
        (file(b"text", size=b"4x"), "'f': the header's size"),
        (header(b"c", b"3", major=b"7777777\0"), "'c': major"),
        (header(b"c", b"4", minor=b"\x80" + b"\xff" * 7), "'c': minor"),
        (header(b"h", b"1", link=b"none"), "'h': hard link to 'none', which is not in this layer"),
        (header(b"d", b"5") + header(b"h", b"1", link=b"d"), "'h': hard link to 'd', which is a directory"),
        (header(b"h", b"1", link=b"/"), "'h': hard link to '/', which is a directory"),
        (header(b"l", b"2"), "'l': "),
        (pax(path=b"n" * 256) + _FILE, "File name too long"),
        (file(b"text", kind=b"M"), "'f' is the continuation of a file"),
        (file(b"text", kind=b"N"), "'f' is a list of names"),
        (raw_pax(("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0")) + _FILE, "'f': a sparse file of the unknown format"),
        (pax(uid=b"1")[:512] + b"9 uid=1\n".ljust(512, b"\0") + _FILE, "a pax header is malformed"),
        (_FILE[:514], "'f': the archive ends within the file"),
        (_FILE[:100], "the archive ends within a header"),
    ],
)
def test_what_cannot_be_is_damage(archive: bytes, message: str, root: Path, launcher: Launcher) -> None:
    """DataLoss with the member's name and the key: a retry would not help."""
    with pytest.raises(DataLoss) as refused:
        _unpack(archive, root, launcher)
    assert type(refused.value) is DataLoss
    assert message in str(refused.value)


def _sparse(size: int, *pairs: tuple[int, int], content: bytes = b"") -> bytes:
    numbers = b"\n".join(b"%d" % n for n in (len(pairs), *(part for pair in pairs for part in pair))) + b"\n"
    body = numbers.ljust(-(-len(numbers) // 512) * 512, b"\0") + content
    records = {"major": b"1", "minor": b"0", "name": b"f", "realsize": b"%d" % size}
    return raw_pax(*((f"GNU.sparse.{key}", value) for key, value in records.items())) + file(body, b"GNUSparseFile.1/f")


@pytest.mark.parametrize(
    "archive",
    [
        _sparse(10, (0, 4), (2, 4), content=b"12345678"), _sparse(10, (8, 4), content=b"1234"), _sparse(10, (4, 4), (0, 4), content=b"12345678"),
        _sparse(10, (0, 4), content=b"12345678"), _sparse(10, (0, 8), content=b"1234"), _sparse(10, (0, -4)),
        raw_pax(("GNU.sparse.map", b"0,4,8"), ("GNU.sparse.size", b"10")) + _FILE,
        raw_pax(("GNU.sparse.numbytes", b"4"), ("GNU.sparse.offset", b"0")) + _FILE,
        raw_pax(("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")) + file(b"x" * 512),
    ],
)  # fmt: skip
def test_a_sparse_map_that_lies_is_damage(archive: bytes, root: Path, launcher: Launcher) -> None:
    """Overlapping, outside of the file, descending, of more or less data than there is, odd, unreadable."""
    with pytest.raises(DataLoss, match="sparse"):
        _unpack(archive, root, launcher)


def test_a_sparse_file_counts_as_it_is_large(root: Path, launcher: Launcher) -> None:
    """Not as its archive does: whoever copies it up has all of it."""
    with pytest.raises(ResourceExhausted, match="'f': unpacked the layer is larger than the limit of 1048576 bytes"):
        _unpack(_sparse((1 << 20) + 1), root, launcher, limit=1 << 20)
    _unpack(_sparse(1 << 20), root, launcher, limit=1 << 20)


@pytest.mark.parametrize("name", [b"../x", b"a/../../x", b"/../x", b".."])
def test_a_name_that_leaves_the_root_is_refused(name: bytes, root: Path, launcher: Launcher) -> None:
    """Readers do not agree what it means."""
    for member in (file(b"", name), header(b"h", b"1", link=name)):
        with pytest.raises(InvalidArgument, match="leads out of the layer"):
            _unpack(_FILE + member, root, launcher)
    assert not (root.parent / "x").exists()


def test_a_map_that_goes_on_in_blocks_of_its_own(root: Path, launcher: Launcher) -> None:
    """GNU's old sparse members: four pairs in the header, twenty-one in each block behind it."""
    pairs = [(number * 1000, 10) for number in range(30)]
    fields = [b"%011o\0%011o\0" % pair for pair in pairs]
    block = bytearray(header(b"f", b"S", size=b"%011o\0" % 300, magic=b"ustar  \0"))
    block[386:482] = b"".join(fields[:4])
    block[482:483], block[483:495] = b"\1", b"%011o\0" % 40000
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    more = b"".join(fields[4:25]) + b"\1" + bytes(7) + b"".join(fields[25:]).ljust(512, b"\0")
    content = b"".join(b"%010d" % number for number in range(30))
    _unpack(bytes(block) + more + content.ljust(512, b"\0") + _AFTER, root, launcher)
    found = (root / "f").read_bytes()
    assert len(found) == 40000
    assert [found[offset : offset + 10] for offset, _length in pairs] == [b"%010d" % number for number in range(30)]
    assert found.replace(b"\0", b"") == content
    assert (root / "after").read_bytes() == b"after"


def test_a_checksum_of_signed_bytes(root: Path, launcher: Launcher) -> None:
    """As old machines summed."""
    block = bytearray(header(b"\xff\xfe"))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(struct.unpack("512b", block))
    _unpack(bytes(block), root, launcher)
    assert os.listdir(os.fsencode(root)) == [b"\xff\xfe"]


def test_owners_modes_and_devices(root: Path, launcher: Launcher) -> None:
    """The largest ids that there are, the whole mode, a device's numbers."""
    large = pax(uid=b"4294967294", gid=b"4294967294")
    device = header(b"c", b"3", mode=b"0000620\0", major=b"0000004\0", minor=b"0000100\0")
    _unpack(large + file(b"", b"f", mode=b"0007777\0") + device, root, launcher)
    status = (root / "f").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (4294967294, 4294967294, 0o7777)
    status = (root / "c").stat()
    assert (status.st_rdev, stat.S_IMODE(status.st_mode)) == (os.makedev(4, 64), 0o620)


@pytest.mark.parametrize("length", [4096, 5000, 100_000])
def test_a_path_that_is_too_long_is_refused(length: int, root: Path, launcher: Launcher) -> None:
    """By its beginning."""
    path = b"/".join([b"d" * 100] * 2000)[:length]
    for member in (pax(path=path) + _FILE, pax(linkpath=path) + header(b"l", b"2")):
        with pytest.raises(TrivetError, match="is over the limit of 4095"):
            _unpack(member, root, launcher)


def test_what_nobody_foresaw_is_an_error_of_ours(root: Path, launcher: Launcher) -> None:
    """By a worker in its chroot, where nothing can be imported any more."""
    stream, writer = os.pipe()
    reader, result = os.pipe()
    os.write(writer, _FILE)
    os.close(writer)
    argument = {"directory": str(root), "parents": [], "limit": "no number"}
    launcher.fork("runtime_core.images.unpack_worker:main", argument, [stream, result]).wait()
    for descriptor in (stream, result):
        os.close(descriptor)
    report = json.loads(os.read(reader, 65536))
    os.close(reader)
    assert report["kind"] == "TrivetError" and "unpacking a layer: TypeError" in report["message"]
