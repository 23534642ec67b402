"""Header blocks of SPDY/3.1: names and values, compressed with zlib and a dictionary that both sides know.

Source: SPDY Protocol draft 3.1, 2.6.10 "Name/Value Header Block". No I/O.
"""

from __future__ import annotations

import struct
import zlib

from runtime_core.errors import InvalidArgument

#: a header block that is larger when it is inflated is refused (CVE-2026-35469)
LARGEST_BLOCK = 64 * 1024
MOST_HEADERS = 100

_NAMES = (
    "options", "head", "post", "put", "delete", "trace", "accept", "accept-charset", "accept-encoding", "accept-language",
    "accept-ranges", "age", "allow", "authorization", "cache-control", "connection", "content-base", "content-encoding",
    "content-language", "content-length", "content-location", "content-md5", "content-range", "content-type", "date", "etag",
    "expect", "expires", "from", "host", "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since",
    "last-modified", "location", "max-forwards", "pragma", "proxy-authenticate", "proxy-authorization", "range", "referer",
    "retry-after", "server", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "vary", "via", "warning",
    "www-authenticate", "method", "get", "status", "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive",
    "origin",
)  # fmt: skip
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative Information"
    "204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error"
    "501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, "
    "Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
#: the dictionary: each name behind its length, then text that has no length
DICTIONARY = b"".join(struct.pack(">I", len(name)) + name.encode() for name in _NAMES) + _TEXT.encode()


class HeaderReader:
    """The header blocks of one direction of a connection, in their order: they share one zlib stream."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(zdict=DICTIONARY)

    def read(self, compressed: bytes) -> dict[str, str]:
        """Name (lower case) → value; InvalidArgument for what is no header block or a too large one."""
        try:
            block = self._inflater.decompress(compressed, LARGEST_BLOCK + 1)
        except zlib.error as error:
            raise InvalidArgument(f"SPDY header block: {error}") from None
        if len(block) > LARGEST_BLOCK:
            raise InvalidArgument(f"SPDY header block: it is larger than {LARGEST_BLOCK} bytes")
        try:
            return _parse(block)
        except struct.error:
            raise InvalidArgument("SPDY header block: it ends in the middle of a header") from None


def _parse(block: bytes) -> dict[str, str]:
    (count,) = struct.unpack_from(">I", block)
    if count > MOST_HEADERS:
        raise InvalidArgument(f"SPDY header block: {count} headers are more than {MOST_HEADERS}")
    headers: dict[str, str] = {}
    position = 4
    for _header in range(count):
        name, position = _string(block, position)
        value, position = _string(block, position)
        headers[name.lower()] = value
    return headers


def _string(block: bytes, position: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">I", block, position)
    end = position + 4 + length
    if end > len(block):
        raise InvalidArgument("SPDY header block: it ends in the middle of a header")
    return block[position + 4 : end].decode("latin-1"), end


class HeaderWriter:
    """The other direction."""

    def __init__(self) -> None:
        self._deflater = zlib.compressobj(zdict=DICTIONARY)

    def write(self, headers: dict[str, str]) -> bytes:
        """The block of `headers`, ended by a flush, so that its reader has it whole."""
        parts = [struct.pack(">I", len(headers))]
        for name, value in headers.items():
            for text in (name.encode(), value.encode()):
                parts += [struct.pack(">I", len(text)), text]
        return self._deflater.compress(b"".join(parts)) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
