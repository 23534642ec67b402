"""Where the data of a sparse tar member lie: GNU's old header and its pax formats 0.0, 0.1 and 1.0. Pure. Cold.

Source: GNU tar manual, "Storing Sparse Files". A map is (offset, length) pairs, ascending, within the file.
"""

from __future__ import annotations

from runtime_core.errors import DataLoss, ResourceExhausted
from runtime_core.images import tar_numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.images.tar_content import Content

    Map = list[tuple[int, int]]

_BLOCK = 512
_OFFSET, _LENGTH, _MAP = "GNU.sparse.offset", "GNU.sparse.numbytes", "GNU.sparse.map"
_MAJOR, _MINOR = "GNU.sparse.major", "GNU.sparse.minor"
#: of a map as text
_MOST_BYTES = 1024 * 1024


def collect(records: dict[str, bytes], key: str, value: bytes) -> None:
    """Put one pax record among the others. Those of format 0.0 come again and again, and their order counts:
    they are made the one of format 0.1."""
    if key not in (_OFFSET, _LENGTH):
        records[key] = value
        return
    held = records.get(_MAP, b"")
    is_due = _OFFSET if not held or held.count(b",") % 2 else _LENGTH
    if key != is_due or b"," in value:
        raise DataLoss("a pax header is malformed: the offsets and lengths of a sparse map do not alternate")
    records[_MAP] = held + b"," + value if held else value


def map_from_header(header: bytes, content: Content, name: str) -> tuple[int, Map]:
    """(size of the file, map) of a member of GNU's type S, whose map goes on in blocks behind the header."""
    found = _pairs(header[386:482], name)
    stored = content.left
    is_extended = header[482]
    content.begin(_BLOCK)
    while is_extended:
        block = content.whole("a sparse map")
        found += _pairs(block[:504], name)
        is_extended = block[504]
        if len(found) * 24 > _MOST_BYTES:
            raise ResourceExhausted(f"{name!r}: a sparse map of more than {_MOST_BYTES} bytes")
        content.begin(_BLOCK)
    content.begin(stored)
    return _checked(tar_numbers.from_field(header[483:495], "realsize", name), found, stored, name)


def map_from_pax(pax: dict[str, bytes], content: Content, name: str) -> tuple[int, Map] | None:
    """(size of the file, map) as the pax records say; None when the member is not sparse."""
    version = pax.get(_MAJOR, b""), pax.get(_MINOR, b"")
    if version == (b"1", b"0"):
        numbers = _numbers_in_content(content, name)
    elif version in ((b"0", b"0"), (b"0", b"1")) or (version == (b"", b"") and _MAP in pax):
        numbers = [tar_numbers.from_pax(number, _MAP, name) for number in pax.get(_MAP, b"").split(b",") if pax.get(_MAP)]
    elif version == (b"", b""):
        return None
    else:
        raise DataLoss(f"{name!r}: a sparse file of the unknown format {version[0]!r}.{version[1]!r}")
    if len(numbers) % 2:
        raise DataLoss(f"{name!r}: a sparse map of an odd number of numbers")
    size = pax.get("GNU.sparse.realsize") or pax.get("GNU.sparse.size") or b""
    found = list(zip(numbers[::2], numbers[1::2], strict=True))
    return _checked(tar_numbers.from_pax(size, "GNU.sparse.realsize", name), found, content.left, name)


def _pairs(fields: bytes, name: str) -> Map:
    found = []
    for position in range(0, len(fields), 24):
        pair = fields[position : position + 24]
        if not pair[0]:
            break
        numbers = (tar_numbers.from_field(part, "sparse map", name) for part in (pair[:12], pair[12:]))
        found.append((next(numbers), next(numbers)))
    return found


def _numbers_in_content(content: Content, name: str) -> list[int]:
    """Format 1.0: how many pairs, and they, a number a line, before the data, in whole blocks."""
    text = b""
    wanted = 1
    while text.count(b"\n") < wanted:
        block = content.read(_BLOCK)
        text += block
        if len(block) < _BLOCK:
            raise DataLoss(f"{name!r}: the archive ends within a sparse map")
        if len(text) > _MOST_BYTES:
            raise ResourceExhausted(f"{name!r}: a sparse map of more than {_MOST_BYTES} bytes")
        if wanted == 1 and b"\n" in text:
            wanted += 2 * max(0, tar_numbers.from_pax(text.partition(b"\n")[0], "sparse map", name))
    return [tar_numbers.from_pax(line, "sparse map", name) for line in text.split(b"\n")[1:wanted]]


def _checked(size: int, found: Map, stored: int, name: str) -> tuple[int, Map]:
    end = 0
    for offset, length in found:
        if offset < end or length < 0 or offset + length > size:
            raise DataLoss(f"{name!r}: a sparse map that is not ascending within the file's {size} bytes")
        end = offset + length
    if sum(length for _offset, length in found) != stored:
        raise DataLoss(f"{name!r}: a sparse map of other than the {stored} bytes that the archive has")
    return size, found
