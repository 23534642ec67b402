"""An entry point's object by its text, for code that cannot ask stevedore. Cold."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load(entry: str) -> Any:
    """What "module:attribute" stands for; the module is imported when it is not there yet. From any thread.

    It is the statement `from module import attribute`, which waits for a module that another thread is just
    importing, where a look into sys.modules finds half of it. Where the module is whole, as in a monitor, it runs
    no line of Python: the import machinery's would write on pages that are shared until then.
    """
    module, _, attribute = entry.partition(":")
    return getattr(__import__(module, fromlist=(attribute,)), attribute)
