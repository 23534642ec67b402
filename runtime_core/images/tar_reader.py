"""The tar formats that image layers come in: ustar, GNU long names, pax. Pure but for the `read` it is given.

Cold: the unpack worker imports it. Sources: POSIX pax(1), GNU tar manual "Basic Tar Format".
"""

from __future__ import annotations

from runtime_core.errors import DataLoss, ResourceExhausted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK = 512
REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_OLD_REGULAR, _CONTIGUOUS, _LONG_LINK, _LONG_NAME, _PAX, _PAX_GLOBAL, _SPARSE = (
    b"\0", b"7", b"K", b"L", b"x", b"g", b"S",
)  # fmt: skip
_MOST_HEADER = 1024 * 1024
_MOST_ENTRIES = 2_000_000
_LONGEST_PATH = 4096
_XATTR = "SCHILY.xattr."


class Entry:
    """One member. Its `size` bytes follow in the stream and must be consumed before the next one."""

    __slots__ = ("gid", "kind", "link", "major", "minor", "mode", "mtime", "name", "size", "uid", "xattrs")

    def __init__(self, header: bytes) -> None:
        self.name = _text(header[0:100])
        self.mode = _number(header[100:108], "mode") & 0o7777
        self.uid, self.gid = _number(header[108:116], "uid"), _number(header[116:124], "gid")
        self.size = _number(header[124:136], "size")
        #: nanoseconds since the epoch
        self.mtime = _number(header[136:148], "mtime") * 1_000_000_000
        self.kind = header[156:157]
        self.link = _text(header[157:257])
        self.major = self.minor = 0
        self.xattrs: dict[str, bytes] = {}
        if header[257:262] == b"ustar":
            if self.kind in (CHARACTER, BLOCK_DEVICE):
                self.major, self.minor = _number(header[329:337], "major"), _number(header[337:345], "minor")
            prefix = _text(header[345:500]) if header[257:265] == b"ustar\x0000" else ""
            if prefix:
                self.name = f"{prefix}/{self.name}"


def entries(read: Callable[[int], bytes], skip: Callable[[int], None]) -> Iterator[Entry]:
    """The members of the archive that `read(n)` gives, n bytes or less at the end.

    `skip(n)` passes over bytes. Whoever takes an entry reads its content before going on;
    padding is passed over here. Raises DataLoss, ResourceExhausted.
    """
    overrides: dict[str, bytes] = {}
    globals_: dict[str, bytes] = {}
    for _count in range(_MOST_ENTRIES):
        header = read(BLOCK)
        if not header or header == bytes(BLOCK):
            return
        if len(header) < BLOCK:
            raise DataLoss("the archive ends within a header")
        _check_sum(header)
        entry = Entry(header)
        if entry.kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL):
            content = _content(read, skip, entry.size)
            if entry.kind == _LONG_NAME:
                overrides["path"] = content.rstrip(b"\0")
            elif entry.kind == _LONG_LINK:
                overrides["linkpath"] = content.rstrip(b"\0")
            else:
                (globals_ if entry.kind == _PAX_GLOBAL else overrides).update(parse_pax(content))
            continue
        _override(entry, {**globals_, **overrides} if globals_ else overrides)
        overrides = {}
        if entry.kind in (_OLD_REGULAR, _CONTIGUOUS):
            entry.kind = DIRECTORY if entry.name.endswith("/") else REGULAR
        if entry.kind == _SPARSE:
            raise DataLoss(f"{entry.name!r}: sparse members are not allowed in a layer")
        if len(entry.name) > _LONGEST_PATH or len(entry.link) > _LONGEST_PATH:
            raise ResourceExhausted(f"a path of {len(entry.name)} characters is over the limit of {_LONGEST_PATH}")
        yield entry
        if entry.size:
            skip(-entry.size % BLOCK)
    raise ResourceExhausted(f"the archive has more than {_MOST_ENTRIES} members")


def parse_pax(content: bytes) -> dict[str, bytes]:
    """The records "LENGTH KEY=VALUE\\n" of a pax header."""
    found: dict[str, bytes] = {}
    position = 0
    while position < len(content):
        space = content.find(b" ", position, position + 20)
        length = content[position:space]
        if space < 0 or not length.isdigit() or int(length) < 5 or position + int(length) > len(content):
            raise DataLoss("a pax header is malformed")
        end = position + int(length)
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise DataLoss("a pax header is malformed")
        found[key.decode("utf-8", "surrogateescape")] = value
        position = end
    return found


def _override(entry: Entry, pax: dict[str, bytes]) -> None:
    if not pax:
        return
    if any(key.startswith("GNU.sparse.") for key in pax):
        raise DataLoss(f"{entry.name!r}: sparse members are not allowed in a layer")
    if "path" in pax:
        entry.name = _text(pax["path"])
    if "linkpath" in pax:
        entry.link = _text(pax["linkpath"])
    try:
        entry.size = int(pax.get("size", entry.size))
        entry.uid = int(pax.get("uid", entry.uid))
        entry.gid = int(pax.get("gid", entry.gid))
        if "mtime" in pax:
            seconds, _, fraction = pax["mtime"].decode().partition(".")
            entry.mtime = int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, "0") or 0)
    except ValueError:
        raise DataLoss(f"{entry.name!r}: a pax header has a malformed number") from None
    if entry.size < 0:
        raise DataLoss(f"{entry.name!r}: a negative size")
    entry.xattrs = {key[len(_XATTR) :]: value for key, value in pax.items() if key.startswith(_XATTR)}


def _content(read: Callable[[int], bytes], skip: Callable[[int], None], size: int) -> bytes:
    if size > _MOST_HEADER:
        raise ResourceExhausted(f"an extended header of {size} bytes is over the limit of {_MOST_HEADER}")
    content = read(size)
    if len(content) < size:
        raise DataLoss("the archive ends within an extended header")
    skip(-size % BLOCK)
    return content


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(field: bytes, what: str) -> int:
    """Octal, or GNU's base-256 when the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False) & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.strip(b" \0")
    try:
        value = int(digits, 8) if digits else 0
    except ValueError:
        raise DataLoss(f"a header has a malformed {what}: {digits!r}") from None
    return value


def _check_sum(header: bytes) -> None:
    stated = _number(header[148:156], "checksum")
    if sum(header[:148]) + sum(header[156:]) + 256 != stated:
        raise DataLoss("a header's checksum is wrong")
