"""Loop devices given back, until they are free: the last who holds one may be in another mount namespace.

A copy of a mount, an open file or a prober keeps the device for as long as it is there; the kernel tells its end
by an event (drivers/block/loop.c, __loop_clr_fd).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from runtime_core.errors import Unavailable
from runtime_core.kernel import holders, loop_device, uevents
from runtime_core.volumes import images

#: a namespace that is being made or taken down lets go within milliseconds, on a loaded machine within one or two seconds
SECONDS = 5.0


def release(numbers: Sequence[int], image: str, what: str) -> None:
    """Give these devices over `image` back. Returns when they are free; Unavailable says who holds one after SECONDS."""
    images.detach(numbers, image)
    backing = {number: loop_device.backing_file(number) for number in loop_device.find(image, numbers)}

    def left() -> list[int]:
        return [number for number, before in backing.items() if loop_device.backing_file(number) == before]

    if not backing or uevents.wait_until(lambda: not left(), SECONDS):
        return
    number = left()[0]
    raise Unavailable(f"{what}: /dev/loop{number} is held {holders_of(number)}")


def holders_of(number: int) -> str:
    """Such as "by 4711 (sleep)"."""
    found = holders.device_holders(os.stat(loop_device.device_node(number)).st_rdev)
    return f"by {found}" if found else "by nobody who can be seen in /proc"
