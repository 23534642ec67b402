"""Decimal numbers in text from outside: ASCII digits and nothing else. Cold.

str.isdigit() and int() take more than the formats that we read: digits of every script of Unicode, "²",
blanks, signs, underscores; and int() raises for what has thousands of digits.
"""

from __future__ import annotations

LARGEST = (1 << 63) - 1


def parse_decimal(text: str | bytes, largest: int = LARGEST) -> int | None:
    """The number that `text` is; None when it is anything but ASCII digits, or more than `largest`."""
    if not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0" if isinstance(text, str) else b"0")  # type: ignore[arg-type]
    if len(digits) > len(str(largest)):
        return None
    number = int(digits or "0")
    return number if number <= largest else None
