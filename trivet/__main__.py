"""trivet: the front door for people; a client of the sockets like any other."""

from __future__ import annotations

import argparse
import sys

from runtime_core import command_line


def main() -> int:
    return command_line.run("trivet", _main)


def _main() -> int:
    parser = argparse.ArgumentParser(prog="trivet", description="A container stack in Python.")
    command_line.add_version(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("demo", help="see it work: pull, pod, logs, exec, and the daemon killed").set_defaults(run=_demo)
    commands.add_parser("plugins", help="list every driver that is installed").set_defaults(run=_plugins)
    volumes = commands.add_parser("volumes", help="list trivet-csi's volumes and snapshots: size, use, health")
    volumes.set_defaults(run=_volumes)
    volumes.add_argument("--endpoint", default="unix:///run/trivet/csi.sock", help="socket of trivet-csi (default %(default)s)")
    volumes.add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args()
    return int(arguments.run(arguments))


def _demo(_arguments: argparse.Namespace) -> int:
    command_line.require_root("demo makes namespaces, mounts and cgroups")
    from trivet.commands.demo import demo

    return demo()


def _plugins(_arguments: argparse.Namespace) -> int:
    from trivet.commands.plugins import list_plugins

    list_plugins()
    return 0


def _volumes(arguments: argparse.Namespace) -> int:
    from trivet.commands.volumes import list_volumes

    list_volumes(arguments.endpoint, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
