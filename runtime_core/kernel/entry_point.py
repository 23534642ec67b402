"""An entry point's object by its text, for code that cannot ask stevedore. Cold."""

from __future__ import annotations

import importlib
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load(entry: str) -> Any:
    """What "module:attribute" stands for; the module is imported when it is not there yet."""
    module, _, attribute = entry.partition(":")
    # In a monitor it is there, and the import machinery would write on pages that are shared until then.
    return getattr(sys.modules.get(module) or importlib.import_module(module), attribute)
