"""Checks the settings of a back end, and the parameters of a StorageClass."""

from __future__ import annotations

from collections.abc import Mapping

from runtime_core.errors import InvalidArgument
from runtime_core.interfaces.volume import Volume


def parse_numbers(settings: Mapping[str, object], defaults: Mapping[str, float]) -> dict[str, float]:
    """Positive numbers by name; InvalidArgument for what is not known or not such a number."""
    found = dict(defaults)
    for key, value in settings.items():
        if key not in defaults:
            raise InvalidArgument(f"{key}: not a setting of this back end: {', '.join(sorted(defaults)) or 'it has none'}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise InvalidArgument(f"{key}: {value!r} is not a positive number")
        found[key] = float(value)
    return found


def parse_choices(parameters: Mapping[str, str], allowed: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The value of every parameter, the first of its choices where it is not given."""
    found = {key: values[0] for key, values in allowed.items()}
    for key, value in parameters.items():
        if key not in allowed:
            raise InvalidArgument(f"parameters.{key}: unknown; there are {', '.join(sorted(allowed)) or 'none'}")
        if value not in allowed[key]:
            raise InvalidArgument(f"parameters.{key}: {value!r} is none of {', '.join(allowed[key])}")
        found[key] = value
    return found


def check_file_system(volume: Volume, file_systems: tuple[str, ...]) -> None:
    """InvalidArgument when a file system is asked for that is none of these, or for a block volume."""
    if volume.access == "block" and volume.fs_type:
        raise InvalidArgument(f"fs_type: {volume.fs_type!r} is asked for, but a block volume has none")
    if volume.access == "mount" and volume.fs_type not in file_systems:
        raise InvalidArgument(f"fs_type: {volume.fs_type!r} is none of {', '.join(file_systems)}")
