"""Numbers from outside: ASCII digits and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from runtime_core.kernel.decimal_number import LARGEST, parse_decimal

_ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0), ("12", 12), ("007", 7), ("0" * 5000 + "1", 1), (str(LARGEST), LARGEST), (b"12", 12), (b"0", 0),
        ("", None), ("١٢", None), ("²", None), ("１２", None), ("-1", None), ("+1", None), (" 1", None), ("1\n", None),
        ("1_000", None), ("0x1", None), ("1.0", None), ("9" * 5000, None), (str(LARGEST + 1), None), (b"", None), (b"1 ", None),
        ("\ud800", None), ("1\0", None),
    ],
)  # fmt: skip
def test_a_decimal_number_is_ascii_digits(text: str | bytes, number: int | None) -> None:
    """Of str and bytes; whatever else there is is none, and nothing is raised."""
    assert parse_decimal(text) == number


def test_no_more_than_the_largest() -> None:
    """The bound belongs to the numbers."""
    assert (parse_decimal("64", 64), parse_decimal("65", 64), parse_decimal("0064", 64)) == (64, None, 64)


def test_the_product_asks_no_text_whether_it_is_a_digit() -> None:
    """str.isdigit, isdecimal and isnumeric take digits of every script: parse_decimal is the one way."""
    found = []
    for room in ("cri", "cni_plugins", "csi_driver", "plugins", "runtime_core", "trivet"):
        for path in (_ROOT / room).rglob("*.py"):
            if path.name == "decimal_number.py":
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and node.attr in ("isdigit", "isdecimal", "isnumeric"):
                    found.append(f"{path.relative_to(_ROOT)}:{node.lineno}")
    assert found == []
