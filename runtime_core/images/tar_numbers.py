"""Numbers of a tar archive, read and bounded: octal and base-256 fields, pax decimals and times. Pure. Cold."""

from __future__ import annotations

from runtime_core.errors import DataLoss
from runtime_core.kernel.decimal_number import parse_decimal

_BILLION = 1_000_000_000
LARGEST_SIZE = (1 << 63) - 1
#: -1 leaves an owner as it is in chown(2), so it is none
LARGEST_ID = (1 << 32) - 2
#: what the kernel has in a dev_t
LARGEST_MAJOR, LARGEST_MINOR = (1 << 12) - 1, (1 << 20) - 1
TIMES = (-(1 << 63) * _BILLION, ((1 << 63) - 1) * _BILLION)


def from_field(field: bytes, key: str, name: str) -> int:
    """A header's field: octal, ended by a blank, a NUL or the field; or base-256 when the first bit is set (GNU).

    DataLoss names the member and the key.
    """
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.lstrip(b" \0").partition(b"\0")[0].partition(b" ")[0]
    if digits.strip(b"01234567"):
        raise DataLoss(f"{name!r}: the header's {key} {digits!r} is not an octal number")
    return int(digits or b"0", 8)


def from_pax(value: bytes, key: str, name: str) -> int:
    """A decimal number with or without a sign; DataLoss names the member and the key."""
    number = parse_decimal(value.removeprefix(b"-"), LARGEST_SIZE)
    if number is None:
        raise DataLoss(f"{name!r}: pax {key} {value[:32]!r} is not a number that can be")
    return -number if value.startswith(b"-") else number


def time_from_pax(value: bytes, key: str, name: str) -> int:
    """Nanoseconds since the epoch of seconds with or without a fraction; DataLoss names the member and the key.

    -1.5 is a second and a half before the epoch.
    """
    whole, point, fraction = value.removeprefix(b"-").partition(b".")
    seconds = parse_decimal(whole or (b"0" if fraction else b""), 1 << 63)
    if seconds is None or fraction.strip(b"0123456789") or (point and not (whole or fraction)):
        raise DataLoss(f"{name!r}: pax {key} {value[:32]!r} is not a time that can be")
    nanoseconds = seconds * _BILLION + int(fraction[:9].ljust(9, b"0"))
    nanoseconds = -nanoseconds if value.startswith(b"-") else nanoseconds
    check_range(nanoseconds, *TIMES, f"pax {key}", name)
    return nanoseconds


def check_range(number: int, least: int, largest: int, key: str, name: str) -> None:
    """DataLoss, with member and key, for what no file system of ours can hold."""
    if not least <= number <= largest:
        raise DataLoss(f"{name!r}: {key} {number} is not within {least}..{largest}")
