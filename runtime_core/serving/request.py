"""A request from its bytes: a message whose every string and enumeration is what it may be, or the field that is not."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from runtime_core.errors import InvalidArgument

#: C0, DEL and C1: in a path or a name they break logs, terminals and files that are made of lines (CVE-2022-4318)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def decode(kind: type[Message], content: bytes) -> Any:
    """The message of `content`; InvalidArgument, naming a field whose text is not UTF-8, for what is none.

    gRPC itself would answer INTERNAL. A lone surrogate cannot be written in UTF-8 either (RFC 3629, section 3).
    """
    try:
        return kind.FromString(content)
    except DecodeError as error:
        field = _undecodable(kind.DESCRIPTOR, content)
        raise InvalidArgument(f"{field}: is not UTF-8" if field else f"the request is not a message: {error}") from None


def check(message: Message, free_text: Collection[str], prefix: str = "") -> None:
    """InvalidArgument naming the first field that no request may have.

    That is a NUL character in any text, another control character outside of the fields `free_text` (of a map:
    its values), and a number that its enumeration does not have. What was sent is not told: it may be a secret.
    """
    for field, value in message.ListFields():
        name = field.name
        if isinstance(value, str):
            if _CONTROL.search(value):
                _check_text(value, prefix + name, name in free_text)
        elif isinstance(value, Message):
            check(value, free_text, f"{prefix}{name}.")
        elif isinstance(value, int):
            _check_enumeration(field, value, prefix + name)
        elif isinstance(value, bytes):
            _check_bytes(value, prefix + name)
        elif hasattr(value, "items"):
            _check_map(value, free_text, prefix + name, name in free_text)
        elif not isinstance(value, float):
            _check_repeated(field, value, free_text, prefix + name)


def _check_map(entries: Any, free_text: Collection[str], path: str, is_free: bool) -> None:
    for key, value in entries.items():
        if isinstance(key, str):
            _check_text(key, f"{path}: a key")
        if isinstance(value, Message):
            check(value, free_text, f"{path}[{key!r}].")
        elif isinstance(value, str) and _CONTROL.search(value):
            _check_text(value, f"{path}[{key!r}]", is_free)


def _check_repeated(field: FieldDescriptor, values: Any, free_text: Collection[str], path: str) -> None:
    for number, value in enumerate(values):
        if isinstance(value, Message):
            check(value, free_text, f"{path}[{number}].")
        elif isinstance(value, str):
            if _CONTROL.search(value):
                _check_text(value, f"{path}[{number}]", field.name in free_text)
        elif isinstance(value, bytes):
            _check_bytes(value, f"{path}[{number}]")
        elif isinstance(value, int):
            _check_enumeration(field, value, f"{path}[{number}]")


def _check_text(value: str, path: str, is_free: bool = False) -> None:
    found = "\0" if "\0" in value else "" if is_free else _CONTROL.search(value)
    if found:
        character = found if isinstance(found, str) else found.group()
        raise InvalidArgument(f"{path}: contains the control character U+{ord(character):04X}")


def _check_bytes(value: bytes, path: str) -> None:
    if b"\0" in value:
        raise InvalidArgument(f"{path}: contains the control character U+0000")


def _check_enumeration(field: FieldDescriptor, value: int, path: str) -> None:
    kind = field.enum_type
    if kind is not None and value not in kind.values_by_number:
        raise InvalidArgument(f"{path}: {value} is no value of {kind.name}")


def _undecodable(descriptor: Any, content: bytes, prefix: str = "") -> str:
    """Path of the first field whose text is not UTF-8; "" where something else is wrong with `content`."""
    position = 0
    try:
        while position < len(content):
            tag, position = _varint(content, position)
            size = {_FIXED64: 8, _FIXED32: 4}.get(tag & 7, 0)
            if tag & 7 in (_VARINT, _LENGTH):
                number, position = _varint(content, position)
                size = number if tag & 7 == _LENGTH else 0
            value = content[position : position + size]
            position += size
            field = descriptor.fields_by_number.get(tag >> 3)
            if field is not None and tag & 7 == _LENGTH:
                found = _undecodable_field(field, value, prefix + field.name)
                if found:
                    return found
    except IndexError:
        pass  # it ends within a number
    return ""


def _undecodable_field(field: FieldDescriptor, value: bytes, path: str) -> str:
    if field.message_type is not None:
        return _undecodable(field.message_type, value, f"{path}.")
    try:
        if field.type == FieldDescriptor.TYPE_STRING:
            value.decode()
    except UnicodeDecodeError:
        return path
    return ""


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """(number, what follows it); IndexError when it does not end."""
    number = shift = 0
    while True:
        byte = content[position]
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return number, position
