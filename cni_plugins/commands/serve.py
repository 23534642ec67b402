"""trivet-cni serve: the warm service in the foreground, for a unit file; executables start it by themselves."""

from __future__ import annotations

import argparse

from cni_plugins.commands.install import add_settings
from cni_plugins.install import find_settings
from cni_plugins.service import server
from runtime_core import command_line
from runtime_core.errors import AlreadyExists


def configure(parser: argparse.ArgumentParser) -> None:
    add_settings(parser)
    parser.set_defaults(idle=0.0)


def run(arguments: argparse.Namespace) -> int:
    command_line.require_root("serve enters the network namespaces of its callers")
    settings = find_settings(arguments.packet_filter, socket=arguments.socket, idle=arguments.idle)
    path = settings["socket"]
    if not server.serve(settings, path, arguments.idle, lambda: print(f"trivet-cni serves {path}", flush=True)):
        raise AlreadyExists(f"socket {path}: another service is there already")
    return 0
