"""trivet: the front door for people; a client of the sockets like any other."""

from __future__ import annotations

import argparse
import os
import sys

from runtime_core.errors import TrivetError


def main() -> int:
    parser = argparse.ArgumentParser(prog="trivet", description="A container stack in Python.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("demo", help="see it work: pull, pod, logs, exec, and the daemon killed")
    commands.add_parser("plugins", help="list every driver that is installed")
    volumes = commands.add_parser("volumes", help="list trivet-csi's volumes and snapshots: size, use, health")
    volumes.add_argument("--endpoint", default="unix:///run/trivet/csi.sock", help="socket of trivet-csi (default %(default)s)")
    volumes.add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args()
    try:
        if arguments.command == "plugins":
            from trivet.commands.plugins import list_plugins

            list_plugins()
            return 0
        if arguments.command == "volumes":
            from trivet.commands.volumes import list_volumes

            list_volumes(arguments.endpoint, arguments.json)
            return 0
        if os.geteuid() != 0:
            print("trivet demo makes namespaces and mounts, which needs root: type  sudo ./run demo", file=sys.stderr)
            return 1
        from trivet.commands.demo import demo

        return demo()
    except TrivetError as error:
        print(f"trivet: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("trivet: interrupted, everything has been given back", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
