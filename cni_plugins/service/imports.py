"""Imports the plugins, and tells whether their files have changed since. Cold."""

from __future__ import annotations

import importlib
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    Fingerprint = dict[str, tuple[int, int]]


def import_modules(*modules: str) -> Fingerprint:
    """Import `modules`; the files from which they came. A module that cannot be loaded fails in the call that needs it."""
    for module in filter(None, modules):
        try:
            importlib.import_module(module)
        except (ImportError, SyntaxError):
            continue
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + "/"
    library = os.path.dirname(os.path.abspath(os.__file__)) + "/"
    files = (getattr(module, "__file__", None) or "" for module in list(sys.modules.values()))
    ours = (path for path in files if path.startswith(root) or (path and not path.startswith(library)))
    return {path: stamp for path in ours if (stamp := _stamp(path))}


def is_current(fingerprint: Fingerprint) -> bool:
    return all(_stamp(path) == stamp for path, stamp in fingerprint.items())


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
