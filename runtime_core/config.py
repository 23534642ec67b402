"""The settings of a program: a frozen dataclass filled from YAML files, overridden by command-line options.

A field `cni_conf_dir` is the key `cni-conf-dir`, and one with a text, Annotated[Path, "text"], the
option `--cni-conf-dir` too. Every field has a default. The files are FILE and then config.d/*.yaml beside
it, by name: the later one wins, and mappings are merged deep. One file serves every program of the
machine: the key `csi` holds what is trivet-csi's, and trivet-cri reads the rest.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from runtime_core.errors import InvalidArgument
from runtime_core.kernel.decimal_number import parse_decimal

Settings = TypeVar("Settings")
_DROP_INS = "config.d"
#: keys under which other programs' settings stand
_SECTIONS = ("csi",)
_LARGEST = 1024 * 1024
_SCALARS: dict[Any, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,), float: (int, float)}
_NAMES = {str: "a string", bool: "true or false", int: "an integer", float: "a number"}


def add_options(parser: argparse.ArgumentParser, kind: type[Any], default_file: Path) -> None:
    """--config, and an option for each field of `kind` that has a text."""
    parser.add_argument("--config", type=Path, help=f"YAML file with these options as keys (default {default_file})")
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        if typing.get_origin(hints[field.name]) is Annotated:
            form, text = typing.get_args(hints[field.name])
            parser.add_argument(
                f"--{_key(field.name)}", **_form(form), default=argparse.SUPPRESS, help=_help(text, field.default)
            )


def load_settings(kind: type[Settings], arguments: argparse.Namespace, default_file: Path, section: str = "") -> Settings:
    """What the files say, and over it what `arguments` (of `add_options`) say.

    `default_file` may be missing, a named one may not. Raises InvalidArgument naming file and key.
    """
    if arguments.config is not None and not os.path.exists(arguments.config):
        raise InvalidArgument(f"--config: {arguments.config} does not exist")
    found = load_file(kind, arguments.config or default_file, section)
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in vars(arguments).items() if name in names}
    return dataclasses.replace(found, **given)  # type: ignore[type-var]


def load_file(kind: type[Settings], path: Path, section: str = "") -> Settings:
    """The settings of a file and its drop-ins, in `section` where one is named; a file that is not there says nothing."""
    merged: dict[str, Any] = {}
    for file in (path, *sorted((path.parent / _DROP_INS).glob("*.yaml"))):
        document = _section(_read(file), section, f"{file}: ")
        _into(kind, document, f"{file}: ")  # checked by itself, so that the error names its file
        merged = _merge(merged, document)
    return typing.cast(Settings, _into(kind, merged, f"{path}: "))


def _key(name: str) -> str:
    return name.replace("_", "-")


def _form(hint: Any) -> dict[str, Any]:
    """How argparse reads a value of this type."""
    if typing.get_origin(hint) is tuple:
        return {"action": "append"}
    if typing.get_origin(hint) is Literal:
        return {"choices": typing.get_args(hint)}
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    return {"type": {Path: _absolute, int: _integer}.get(hint, hint)}


def _absolute(text: str) -> Path:
    return Path(text).absolute()


def _integer(text: str) -> int:
    number = parse_decimal(text)
    if number is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return number


def _help(text: str, default: Any) -> str:
    shown = ", ".join(default) if isinstance(default, tuple) else default
    return f"{text} (default {shown})" if shown else text


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from error
    if len(content) > _LARGEST:
        raise InvalidArgument(f"{path}: is larger than {_LARGEST} bytes")
    from runtime_core import yaml_document  # here: who has no file does not pay for a parser

    document = yaml_document.parse(content, str(path))
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidArgument(f"{path}: is not a mapping of keys to values")
    return document


def _section(document: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    if not name:
        return {key: value for key, value in document.items() if key not in _SECTIONS}
    found = document.get(name, {})
    if not isinstance(found, dict):
        raise InvalidArgument(f"{where}{name}: {found!r} is not a mapping")
    return found


def _merge(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{key: _merge(below.get(key), value) for key, value in above.items()}}


def _into(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint`; `where` is the file and the keys that led here."""
    origin, parameters = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if hint is Path:
        return _path(value, where)
    if hint in _SCALARS:
        # In Python a bool is an int; in a configuration it is not.
        if not isinstance(value, _SCALARS[hint]) or (isinstance(value, bool) and hint is not bool):
            raise InvalidArgument(f"{where}{value!r} is not {_NAMES[hint]}")
        return hint(value)
    if origin is Literal:
        if value not in parameters:
            raise InvalidArgument(f"{where}{value!r} is not one of {', '.join(parameters)}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise InvalidArgument(f"{where}{value!r} is not a list")
        return tuple(_into(parameters[0], item, f"{where}[{number}]: ") for number, item in enumerate(value))
    if not isinstance(value, dict):
        raise InvalidArgument(f"{where}{value!r} is not a mapping")
    return _dataclass(hint, value, where) if dataclasses.is_dataclass(hint) else _mapping(parameters[1], value, where)


def _path(value: Any, where: str) -> Path:
    if not isinstance(value, str) or not value.startswith("/"):
        raise InvalidArgument(f"{where}{value!r} is not an absolute path")
    return Path(value)


def _mapping(hint: Any, value: dict[Any, Any], where: str) -> Mapping[str, Any]:
    found = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise InvalidArgument(f"{where}the key {key!r} is not a string")
        found[key] = _into(hint, item, f"{where}{key!r}: ")
    return found


def _dataclass(kind: Any, value: dict[Any, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    known = {_key(name): name for name in hints}
    for key in value:
        if key not in known:
            raise InvalidArgument(f"{where}unknown key {key!r} (known are {', '.join(known)})")
    fields = dict(_fields(known, hints, value, where))
    try:
        return kind(**fields)
    except InvalidArgument as error:
        raise InvalidArgument(f"{where}{error}") from error


def _fields(known: dict[str, str], hints: dict[str, Any], value: dict[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        yield known[key], _into(hints[known[key]], item, f"{where}{key}: ")
