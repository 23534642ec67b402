"""What follows the header of a tar archive's member. Cold."""

from __future__ import annotations

from runtime_core.errors import DataLoss, ResourceExhausted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 512
_MOST_HEADER = 1024 * 1024


class Content:
    """What follows a header in the stream."""

    __slots__ = ("_padding", "_read", "_skip", "left")

    def __init__(self, read: Callable[[int], bytes], skip: Callable[[int], None]) -> None:
        self._read, self._skip = read, skip
        self.left = self._padding = 0

    def begin(self, size: int) -> None:
        """It has `size` bytes."""
        self.left, self._padding = size, -size % BLOCK

    def read(self, size: int) -> bytes:
        """The next of it, `size` bytes or less; nothing at its end, and where the archive ends before."""
        data = self._read(min(size, self.left))
        self.left -= len(data)
        return data

    def whole(self, what: str) -> bytes:
        """All of it, which must be small; DataLoss and ResourceExhausted name `what`."""
        size = self.left
        if size > _MOST_HEADER:
            raise ResourceExhausted(f"{what} of {size} bytes is over the limit of {_MOST_HEADER}")
        found = self.read(size)
        if len(found) < size:
            raise DataLoss(f"the archive ends within {what}")
        self.end()
        return found

    def end(self) -> None:
        """Skip what is left of it, and its padding."""
        self._skip(self.left + self._padding)
        self.left = self._padding = 0
