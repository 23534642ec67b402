"""Requests made hostile: protobuf messages by their descriptors, JSON documents by their types; seeded, so that each can
be had again."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

#: stands for a lone surrogate, which protobuf's Python refuses to hold: `wire` puts the real one (as many bytes) in its place
SURROGATE = "\ue000"
#: what a table holds for each type; a test of paths or names of its own adds to `strings`
STRINGS = (
    "", " ", "\0", "a\0b", "/a\0b", "a\nb", "/a\nb", "\t", "\r\n", "\x1b[31mred", "\x7f", "a\x85b", "a\u2028b", "\u202ea",
    SURROGATE, f"/a{SURROGATE}b", "\ufffd", "\U0001f4a5", "é" * 128, "..", ".", "../../../hostile", "/../hostile", "/hostile/..",
    "/hostile//x", "//", "/proc/self/mem/hostile", "/dev/null", "/dev/null/hostile", "/etc/passwd/hostile", "/no/such/hostile",
    "-1", "0", "00", "1e9", "NaN", "²", "\u0661\u0662", "4294967296", "9" * 5000, "=x", "x=", "a=b", ":", "::", "0:0", "a:b:c",
    "*", "%s%n%x", "$(hostile)", "{}", "[]", "null", "None", "true", "SIG_IGN", "127.0.0.1", "fe80::1%lo", "::ffff:10.0.0.1",
    "a" * 63, "a" * 64, "a" * 255, "a" * 256, "a" * 4096, "/" + "a" * 300, "/a" * 2500, "/" + "a" * 10_000, "a" * 10_000,
)  # fmt: skip
INTEGERS = (
    0, 1, -1, 2, 7, 1000, -1000, 65535, 65536, 2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**32, 9223372037, 2**53 + 1,
    2**63 - 1, -(2**63), 2**64 - 1,
)  # fmt: skip
FLOATS = (0.0, -0.0, -1.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"))
MANY = 1000

_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}


def mutate(message: Message, rng: Random, count: int | None = None, strings: Sequence[str] = STRINGS) -> list[str]:
    """Make `count` fields of `message` hostile in place (default: one to three); what was done, as "path: change".

    Any field may be hit, also of a message that is not set yet, or be left out, doubled, or be there a thousand times.
    """
    return [_walk(message, "", rng, strings) for _time in range(count or rng.randint(1, 3))]


def wire(message: Message) -> bytes:
    """`message` as it is sent, with real lone surrogates."""
    return message.SerializeToString().replace(SURROGATE.encode(), "\ud800".encode(errors="surrogatepass"))


def mutate_bytes(content: bytes, rng: Random) -> tuple[bytes, str]:
    """Serialized content damaged at one place, and what was done to it."""
    where = rng.randrange(len(content) + 1)
    kind = rng.choice(("cut", "flip", "insert"))
    if kind == "cut":
        return content[:where], f"cut at {where}"
    if kind == "flip" and where < len(content):
        return content[:where] + bytes([content[where] ^ (1 << rng.randrange(8))]) + content[where + 1 :], f"bit of {where}"
    return content[:where] + rng.randbytes(rng.randint(1, 12)) + content[where:], f"inserted at {where}"


def mutate_document(
    document: Any, rng: Random, count: int | None = None, strings: Sequence[str] = STRINGS
) -> tuple[Any, list[str]]:
    """A copy of a JSON `document` with `count` hostile places (default: one to three), and what was done."""
    document = copy.deepcopy(document)
    done = []
    for _time in range(count or rng.randint(1, 3)):
        holder: dict[Any, Any] = {"": document}
        done.append(_walk_document(holder, "", rng, strings))
        document = holder[""]
    return document, done


# -- protobuf


def _walk(message: Message, path: str, rng: Random, strings: Sequence[str]) -> str:
    """Go down a random way, and spoil what is at its end; each field that there may be has its chance."""
    fields = message.DESCRIPTOR.fields
    if not fields:
        return f"{path or message.DESCRIPTOR.name}: has no fields"
    field = rng.choices(fields, [_leaves(field) for field in fields])[0]
    path = f"{path}.{field.name}".lstrip(".")
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _spoil_map(message, field, path, rng, strings)
    value = getattr(message, field.name)
    if isinstance(value, Message):
        return _spoil_message(message, field, path, rng, strings)
    if isinstance(value, (str, bytes, int, float)):
        setattr(message, field.name, chosen := _scalar(field, rng, strings))
        return f"{path}: {_short(chosen)}"
    return _spoil_repeated(value, field, path, rng, strings)


def _leaves(field: FieldDescriptor) -> int:
    """How many fields there are to be spoilt in a field."""
    if field.message_type is None:
        return 1
    return _leaves_of(field.message_type)


@functools.cache
def _leaves_of(descriptor: Any) -> int:
    return 1 + sum(1 if inner.message_type in (None, descriptor) else _leaves(inner) for inner in descriptor.fields)


def _spoil_message(owner: Message, field: FieldDescriptor, path: str, rng: Random, strings: Sequence[str]) -> str:
    if rng.random() < 0.85:
        value = getattr(owner, field.name)
        value.SetInParent()
        return _walk(value, path, rng, strings)
    owner.ClearField(field.name)
    if rng.random() < 0.5:
        return f"{path}: missing"
    getattr(owner, field.name).SetInParent()
    return f"{path}: empty"


def _spoil_repeated(value: Any, field: FieldDescriptor, path: str, rng: Random, strings: Sequence[str]) -> str:
    how = rng.choice(("change", "change", "change", "add", "add", "clear", "double", "many")) if value else "add"
    if how == "clear":
        del value[:]
    elif how == "double":
        value.extend(list(value[:MANY]))
    elif how == "many":
        value.extend([value[0]] * max(0, MANY - len(value)))
    elif field.message_type is not None:
        place = value.add() if how == "add" else rng.choice(value)
        return _walk(place, f"{path}[]", rng, strings)
    else:
        chosen = _scalar(field, rng, strings)
        if how == "add":
            value.append(chosen)
        else:
            value[rng.randrange(len(value))] = chosen
        return f"{path}[]: {_short(chosen)}"
    return f"{path}: {how}"


def _spoil_map(message: Message, field: FieldDescriptor, path: str, rng: Random, strings: Sequence[str]) -> str:
    entries = getattr(message, field.name)
    key_field, value_field = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    if value_field.message_type is not None:
        return _walk(entries[_scalar(key_field, rng, strings)], f"{path}{{}}", rng, strings)
    if rng.random() < 0.1:
        for number in range(MANY):
            entries[_as(key_field, f"k{number}", number)] = _as(value_field, "v", number)
        return f"{path}: many"
    present = sorted(entries) or [_as(key_field, "k", 1)]
    key = rng.choice(present) if rng.random() < 0.5 else _scalar(key_field, rng, strings)
    entries[key] = value = _scalar(value_field, rng, strings)
    return f"{path}: {_short(key)} = {_short(value)}"


def _as(field: FieldDescriptor, text: str, number: int) -> Any:
    return (
        text
        if field.type == FieldDescriptor.TYPE_STRING
        else text.encode()
        if field.type == FieldDescriptor.TYPE_BYTES
        else number
    )


def _scalar(field: FieldDescriptor, rng: Random, strings: Sequence[str]) -> Any:
    kind = field.cpp_type
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.choice((b"\xff\xfe", rng.choice(strings).encode(errors="surrogateescape")))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return rng.choice(strings)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM and rng.random() < 0.5:
        return rng.choice([value.number for value in field.enum_type.values])
    if kind in _RANGES:
        least, most = _RANGES[kind]
        return rng.choice([number for number in INTEGERS if least <= number <= most])
    return rng.choice(FLOATS)


# -- JSON


def _walk_document(holder: Any, path: str, rng: Random, strings: Sequence[str]) -> str:
    """One place below `holder`, a dict or a list that is not empty, changed."""
    keys = sorted(holder, key=str) if isinstance(holder, dict) else range(len(holder))
    key = rng.choice(keys)
    value, here = holder[key], f"{path}.{key}".strip(".")
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        return _walk_document(value, here, rng, strings)
    name, change = rng.choice(_DOCUMENT_CHANGES)
    change(holder, key, rng, strings)
    return f"{here or 'document'}: {name} {_short(holder[key]) if key in keys and _has(holder, key) else ''}"


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def _replace(holder: Any, key: Any, rng: Random, strings: Sequence[str]) -> None:
    others = (rng.choice(strings), rng.choice(INTEGERS), rng.choice(FLOATS[:5]), None, True, [], {}, [[]], {"": None}, [None])
    if isinstance(holder[key], str) and rng.random() < 0.7:
        others = others[:1]
    holder[key] = copy.deepcopy(rng.choice(others))


def _remove(holder: Any, key: Any, rng: Random, strings: Sequence[str]) -> None:
    if key == "":  # the document itself stays one
        holder[key] = {}
        return
    del holder[key]


def _add(holder: Any, key: Any, rng: Random, strings: Sequence[str]) -> None:
    value = holder[key]
    if isinstance(value, dict):
        value[rng.choice(strings)] = rng.choice(strings)
    elif isinstance(value, list):
        value.append(rng.choice(strings))
    else:
        holder[key] = [value]


def _many(holder: Any, key: Any, rng: Random, strings: Sequence[str]) -> None:
    one = holder[key] if isinstance(holder[key], list) else [holder[key]]
    holder[key] = one * max(1, MANY // max(1, len(one)))


def _deep(holder: Any, key: Any, rng: Random, strings: Sequence[str]) -> None:
    for _level in range(rng.choice((10, 100))):
        holder[key] = [holder[key]]


_Change = Callable[[Any, Any, Random, Sequence[str]], None]
_DOCUMENT_CHANGES: tuple[tuple[str, _Change], ...] = (
    ("replaced by", _replace), ("replaced by", _replace), ("replaced by", _replace), ("removed", _remove), ("added to", _add),
    ("many of", _many), ("deep", _deep),
)  # fmt: skip


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:50]}… ({len(text)})"
