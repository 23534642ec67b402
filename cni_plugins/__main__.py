"""trivet-cni: one module per command, imported when it is called."""

from __future__ import annotations

import argparse
import importlib
import sys

from runtime_core.errors import TrivetError

#: command → what it does; the module cni_plugins.commands.<command> has `configure(parser)` and `run(arguments)`
COMMANDS = {
    "install": "write the plugin executables",
    "serve": "be the warm service that the executables ask",
}


def main(words: list[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(prog="trivet-cni", description="Trivet's CNI plugins.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, what in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        if name == next(iter(words), ""):
            module = importlib.import_module(f"cni_plugins.commands.{name.replace('-', '_')}")
            module.configure(command)
            command.set_defaults(run=module.run)
    arguments = parser.parse_args(words)
    try:
        return int(arguments.run(arguments))
    except TrivetError as error:
        print(f"trivet-cni: {error}", file=sys.stderr)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
