"""The tar formats that image layers come in: v7, ustar, GNU and pax, sparse files of each. Pure but for the `read` it is given.

What GNU tar, bsdtar, Go's archive/tar and Python's tarfile read is read, unless two of them could take it for
different things; that is refused by the member's name and a reason. Cold: the unpack worker imports it.
Sources: POSIX pax(1), GNU tar manual "Basic Tar Format", "Extensions", "Sparse Formats".
"""

from __future__ import annotations

from runtime_core.errors import DataLoss, ResourceExhausted
from runtime_core.images import tar_numbers, tar_sparse
from runtime_core.images.tar_content import BLOCK, Content
from runtime_core.kernel.decimal_number import parse_decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_OLD_REGULAR, _CONTIGUOUS, _SPARSE, _DUMP_DIRECTORY, _VOLUME_LABEL = b"\0", b"7", b"S", b"D", b"V"
_LONG_LINK, _LONG_NAME, _PAX, _PAX_GLOBAL, _SOLARIS_PAX = b"K", b"L", b"x", b"g", b"X"
_EXTENDED = (_LONG_LINK, _LONG_NAME, _PAX, _PAX_GLOBAL, _SOLARIS_PAX)
#: of these nothing follows, whatever the size in the header (old tars put the linked file's there)
_WITHOUT_CONTENT = (HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO)
_REFUSED = {b"M": "the continuation of a file in another archive", b"N": "a list of names of an old GNU tar"}
_MOST_HEADER = 1024 * 1024
_MOST_ENTRIES = 2_000_000
#: bytes: what the kernel takes as one path, without the NUL
_LONGEST_PATH = 4095
_XATTR = "SCHILY.xattr."
_TEXTS = ("path", "linkpath", "uname", "gname", "GNU.sparse.name")


class Entry:
    """One member. `read` gives its content, as far as the taker wants it."""

    __slots__ = (
        "_content", "gid", "kind", "link", "major", "minor", "mode", "mtime", "name", "segments", "size", "uid", "xattrs",
    )  # fmt: skip

    def __init__(self, header: bytes, content: Content) -> None:
        self._content = content
        self.name = _name(header)
        self.kind = header[156:157]
        self.link = _text(header[157:257])
        self.mode = self._number(header[100:108], "mode") & 0o7777
        self.uid, self.gid = self._number(header[108:116], "uid"), self._number(header[116:124], "gid")
        #: bytes of the file, holes included
        self.size = self._number(header[124:136], "size")
        #: nanoseconds since the epoch
        self.mtime = self._number(header[136:148], "mtime") * 1_000_000_000
        self.major = self.minor = 0
        if self.kind in (CHARACTER, BLOCK_DEVICE) and header[257:262] == b"ustar":
            self.major, self.minor = self._number(header[329:337], "major"), self._number(header[337:345], "minor")
        self.xattrs: dict[str, bytes] = {}
        #: (offset, length) in the file of what `read` gives, one behind the other; the rest of the file is holes
        self.segments: Sequence[tuple[int, int]] = ()

    def read(self, size: int) -> bytes:
        """The next of the content, `size` bytes or less; nothing at its end. DataLoss where the archive ends before."""
        data = self._content.read(size)
        if not data and size and self._content.left:
            raise DataLoss(f"{self.name!r}: the archive ends within the file")
        return data

    def _number(self, field: bytes, key: str) -> int:
        return tar_numbers.from_field(field, key, self.name)


def entries(read: Callable[[int], bytes], skip: Callable[[int], None]) -> Iterator[Entry]:
    """The members of the archive that `read(n)` gives, n bytes or less at the end; `skip(n)` passes over bytes.

    What is not read of an entry before the next one is asked for is passed over. Raises DataLoss, ResourceExhausted.
    """
    content = Content(read, skip)
    overrides: dict[str, bytes] = {}
    globals_: dict[str, bytes] = {}
    for _count in range(_MOST_ENTRIES):
        header = read(BLOCK)
        if not header or header == bytes(BLOCK):
            return
        if len(header) < BLOCK:
            raise DataLoss("the archive ends within a header")
        _check_sum(header)
        kind = header[156:157]
        if kind in _EXTENDED:
            content.begin(tar_numbers.from_field(header[124:136], "size", "an extended header"))
            _extend(kind, content.whole("an extended header"), overrides, globals_)
            continue
        entry = _entry(header, content, {**globals_, **overrides} if globals_ else overrides)
        overrides = {}
        if kind != _VOLUME_LABEL:
            yield entry
        content.end()
    raise ResourceExhausted(f"the archive has more than {_MOST_ENTRIES} members")


def parse_pax(content: bytes) -> dict[str, bytes]:
    """The records "LENGTH KEY=VALUE\\n" of a pax header; DataLoss for anything else but NULs at the end."""
    found: dict[str, bytes] = {}
    content = content.rstrip(b"\0")  # some writers count their padding
    position = 0
    while position < len(content):
        space = content.find(b" ", position, position + 20)
        length = parse_decimal(content[position : max(space, 0)], len(content) - position)
        if length is None or length < 5 or content[position + length - 1 : position + length] != b"\n":
            raise DataLoss("a pax header is malformed")
        key, equals, value = content[space + 1 : position + length - 1].partition(b"=")
        if not equals or not key:
            raise DataLoss("a pax header is malformed")
        tar_sparse.collect(found, key.decode("utf-8", "surrogateescape"), value)
        position += length
    return found


def _extend(kind: bytes, content: bytes, overrides: dict[str, bytes], globals_: dict[str, bytes]) -> None:
    if kind == _LONG_NAME:
        overrides["path"] = content.partition(b"\0")[0]
    elif kind == _LONG_LINK:
        overrides["linkpath"] = content.partition(b"\0")[0]
    else:
        (globals_ if kind == _PAX_GLOBAL else overrides).update(parse_pax(content))


def _entry(header: bytes, content: Content, pax: dict[str, bytes]) -> Entry:
    entry = Entry(header, content)
    if pax:
        _override(entry, pax)
    if entry.kind in _REFUSED:
        raise DataLoss(f"{entry.name!r} is {_REFUSED[entry.kind]}, which cannot be part of a layer")
    _check_ranges(entry)
    _check_length(entry.name, "path")
    _check_length(entry.link, "link's target")
    if entry.kind in _WITHOUT_CONTENT:
        entry.size = 0
    content.begin(entry.size)
    if entry.kind == _SPARSE:
        entry.size, entry.segments = tar_sparse.map_from_header(header, content, entry.name)
    elif entry.kind not in (*_WITHOUT_CONTENT, _DUMP_DIRECTORY):
        entry.size, entry.segments = tar_sparse.map_from_pax(pax, content, entry.name) or (entry.size, ((0, entry.size),))
    entry.kind = _plain_kind(entry)
    return entry


def _check_ranges(entry: Entry) -> None:
    """DataLoss for what no file system of ours can hold, wherever it came from."""
    for key, largest in (("size", tar_numbers.LARGEST_SIZE), ("uid", tar_numbers.LARGEST_ID), ("gid", tar_numbers.LARGEST_ID)):
        tar_numbers.check_range(getattr(entry, key), 0, largest, key, entry.name)
    tar_numbers.check_range(entry.mtime, *tar_numbers.TIMES, "mtime", entry.name)
    tar_numbers.check_range(entry.major, 0, tar_numbers.LARGEST_MAJOR, "major", entry.name)
    tar_numbers.check_range(entry.minor, 0, tar_numbers.LARGEST_MINOR, "minor", entry.name)


def _plain_kind(entry: Entry) -> bytes:
    """The kind as one of the seven that a file system has; what POSIX does not know is a regular file."""
    if entry.kind == _DUMP_DIRECTORY or (entry.kind == _OLD_REGULAR and entry.name.endswith("/")):
        return DIRECTORY
    return entry.kind if entry.kind in _WITHOUT_CONTENT else REGULAR


def _override(entry: Entry, pax: dict[str, bytes]) -> None:
    """What a pax header says over what the header says; an empty value says nothing (POSIX)."""
    for key in _TEXTS:
        if b"\0" in pax.get(key, b""):
            raise DataLoss(f"{entry.name!r}: pax {key} contains a NUL")
    if pax.get("path"):
        entry.name = _text(pax["path"])
    if pax.get("GNU.sparse.name"):
        entry.name = _text(pax["GNU.sparse.name"])
    if pax.get("linkpath"):
        entry.link = _text(pax["linkpath"])
    for key in ("size", "uid", "gid"):
        if pax.get(key):
            setattr(entry, key, tar_numbers.from_pax(pax[key], key, entry.name))
    times = {key: tar_numbers.time_from_pax(pax[key], key, entry.name) for key in ("mtime", "atime", "ctime") if pax.get(key)}
    entry.mtime = times.get("mtime", entry.mtime)
    entry.xattrs = {key[len(_XATTR) :]: value for key, value in pax.items() if key.startswith(_XATTR)}
    if any("\0" in name for name in entry.xattrs):
        raise DataLoss(f"{entry.name!r}: the name of an extended attribute contains a NUL")


def _check_length(path: str, what: str) -> None:
    length = len(path.encode("utf-8", "surrogateescape"))
    if length > _LONGEST_PATH:
        raise ResourceExhausted(f"{path[:80]!r}…: a {what} of {length} bytes is over the limit of {_LONGEST_PATH}")


def _name(header: bytes) -> str:
    name = _text(header[0:100])
    if header[257:263] != b"ustar\0":
        return name
    # star has two times where others have the end of the prefix
    prefix = _text(header[345:476] if header[508:512] == b"tar\0" else header[345:500])
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _check_sum(header: bytes) -> None:
    stated = tar_numbers.from_field(header[148:156], "checksum", "a header")
    summed = header[:148] + header[156:]
    found = sum(summed) + 8 * ord(" ")
    # Old tars of machines with a signed char summed that.
    if stated != found and stated != found - 256 * sum(byte > 127 for byte in summed):
        raise DataLoss("a header's checksum is wrong")
