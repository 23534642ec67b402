"""Runs a call without the service, in this process, and starts the service for the next call. Cold."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TRY_AGAIN = 11


def run_in_process(kind: str, settings: dict[str, Any], text: bytes) -> tuple[int, bytes]:
    """(exit status, output) of the plugin for this process's environment."""
    sys.path.extend(settings["path"])
    from cni_plugins import skel

    return skel.serve_call(kind, settings["modules"], settings["packet_filter"], text, sys.argv[1:])


def roll_back_add(kind: str, settings: dict[str, Any], text: bytes) -> tuple[int, bytes]:
    """After the service died in the middle of an ADD: undo it with DEL, since it may have made anything."""
    os.environ["CNI_COMMAND"] = "DEL"
    status, output = run_in_process(kind, settings, text)
    from cni_plugins import skel

    why = "the service died in the middle of ADD" + ("" if status == 0 else f"; DEL failed: {output.decode().strip()}")
    return 1, skel.error_object(_TRY_AGAIN, why, skel.version_of(text))


def time_out(settings: dict[str, Any], text: bytes, seconds: int) -> tuple[int, bytes]:
    """The service took the call and does not answer. It may have done anything of it, and may hold the locks that another
    attempt needs: that is the caller's to make. What the service's process has not done by now it will not do: the
    connection that it ends with is gone."""
    sys.path.extend(settings["path"])
    from cni_plugins import skel

    why = f"the service took {os.environ.get('CNI_COMMAND')} and has not answered within {seconds} s"
    return 1, skel.error_object(_TRY_AGAIN, why, skel.version_of(text))


def start_service(settings: dict[str, Any]) -> None:
    """Start the service in a process that outlives this one; does not wait until it listens."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:  # nothing may unwind into the caller's frames: they belong to the call
        null = os.open("/dev/null", os.O_RDWR)
        for standard in (0, 1, 2):  # at once: the caller's runtime waits for the end of its pipes
            os.dup2(null, standard)
        os.setsid()
        if os.fork() == 0:
            sys.path.extend(settings["path"])
            from cni_plugins.service import server

            server.detach()
            server.serve(settings, settings["socket"], settings["idle"])
    finally:
        os._exit(0)
