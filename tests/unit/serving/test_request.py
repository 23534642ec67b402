"""Requests from their bytes: what no field may hold, for every field of every request of the CRI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from cri.api.v1 import api_pb2 as api
from cri.server import FREE_TEXT
from runtime_core.errors import InvalidArgument
from runtime_core.serving.request import check, decode
from tests.support.hostile_messages import SURROGATE, wire

Put = Callable[[Any], Message]


def _requests() -> list[type[Message]]:
    kinds = {m.input_type.full_name: m.input_type for s in api.DESCRIPTOR.services_by_name.values() for m in s.methods}
    return [GetMessageClass(kinds[name]) for name in sorted(kinds)]


def _places(kind: type[Message], wanted: Callable[[FieldDescriptor], bool]) -> Iterator[tuple[str, Put]]:
    """(path, function that makes a message with the value there) of every field of `kind` that is `wanted`."""
    for field in kind.DESCRIPTOR.fields:
        name, inner = field.name, field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            if wanted(inner.fields_by_name["key"]):
                yield f"{name}{{}}", lambda value, name=name: kind(**{name: {value: "v"}})
            if wanted(inner.fields_by_name["value"]):
                yield f"{name}[", lambda value, name=name: kind(**{name: {"k": value}})
        elif inner is not None:
            is_one = isinstance(getattr(kind(), name), Message)
            for path, put in _places(GetMessageClass(inner), wanted):
                yield (
                    f"{name}{'.' if is_one else '[0].'}{path}",
                    lambda value, name=name, put=put, one=is_one: kind(**{name: put(value) if one else [put(value)]}),
                )
        elif wanted(field):
            is_one = isinstance(getattr(kind(), name), (str, bytes, int))
            yield name, lambda value, name=name, one=is_one: kind(**{name: value if one else [value]})


_TEXTS = [
    (f"{kind.DESCRIPTOR.name}.{path}", put)
    for kind in _requests()
    for path, put in _places(kind, lambda field: field.type == FieldDescriptor.TYPE_STRING)
]


def test_every_text_of_every_request_is_found() -> None:
    """Or the tests below would prove nothing."""
    found = {name for name, _put in _TEXTS}
    assert {"CreateContainerRequest.config.log_path", "RunPodSandboxRequest.config.metadata.name"} <= found
    assert len(found) > 300


@pytest.mark.parametrize("character", ["\0", "\n", "\x1b", "\x7f", "\x9b"])
def test_a_control_character_is_refused_by_the_field(character: str) -> None:
    """Everywhere but for those that are no NUL, in scripts and the like."""
    for name, put in _TEXTS:
        path = name.partition(".")[2]
        parts = path.replace("[0]", "").split(".")
        is_free = character != "\0" and parts[-1].rstrip("[") in FREE_TEXT
        message = put(f"a{character}b")
        if is_free:
            check(message, FREE_TEXT)
            continue
        with pytest.raises(InvalidArgument) as refused:
            check(message, FREE_TEXT)
        assert str(refused.value).startswith(path.removesuffix("{}")), name
        assert f"U+{ord(character):04X}" in str(refused.value)


def test_a_lone_surrogate_is_refused_by_the_field() -> None:
    """UTF-8 has none, so that no message comes of it; without the field's name nobody would find it."""
    for name, put in _TEXTS:
        content = wire(put(f"a{SURROGATE}b"))
        path = name.partition(".")[2].replace("[0]", "").rstrip("{}[")
        with pytest.raises(InvalidArgument) as refused:
            decode(type(put("")), content)
        assert str(refused.value).startswith(path), name


def test_an_unknown_value_of_an_enumeration_is_refused_by_the_field() -> None:
    """Not taken for the first one."""
    for kind in _requests():
        for path, put in _places(kind, lambda field: field.enum_type is not None):
            with pytest.raises(InvalidArgument, match="99 is no value of") as refused:
                check(put(99), FREE_TEXT)
            assert str(refused.value).startswith(path)


@pytest.mark.parametrize("content", [b"\x0a", b"\x0a\x05ab", b"\xff" * 12, b"\x0b", b"\x08"])
def test_what_is_no_message_is_refused(content: bytes) -> None:
    """As the caller's mistake."""
    with pytest.raises(InvalidArgument, match="not a message"):
        decode(api.RunPodSandboxRequest, content)


def test_values_of_variables_are_bytes_without_nul() -> None:
    """Other than UTF-8 is theirs to be."""
    check(api.ContainerConfig(envs=[api.KeyValue(key="A", value=b"\xff\xfe\n")]), FREE_TEXT)
    with pytest.raises(InvalidArgument, match=r"envs\[0\]\.value"):
        check(api.ContainerConfig(envs=[api.KeyValue(key="A", value=b"a\0b")]), FREE_TEXT)


def test_what_was_sent_is_not_told() -> None:
    """It may be a password."""
    with pytest.raises(InvalidArgument) as refused:
        check(api.AuthConfig(password="hunter2\0"), FREE_TEXT)
    assert "hunter2" not in str(refused.value)
