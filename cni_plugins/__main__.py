"""trivet-cni: one module per command, imported when it is called."""

from __future__ import annotations

import argparse
import importlib
import sys

from runtime_core import command_line

_CALL = "call"
#: command → (module below cni_plugins.commands with `configure(parser)` and `run(arguments)`, what it does)
COMMANDS = {
    "install": ("install", "write the plugin executables"),
    "serve": ("serve", "be the warm service that the executables ask"),
    "add": (_CALL, "attach a network namespace to a network, and print the result"),
    "del": (_CALL, "detach it"),
    "check": (_CALL, "ask every plugin whether its part still stands"),
    "gc": (_CALL, "release what is left of attachments that are gone"),
    "status": (_CALL, "ask every plugin whether ADD would succeed"),
    "leases": ("leases", "list the addresses that host-local has given out"),
    "explain": ("explain", "validate a configuration strictly, and say what it would do"),
    "dhcp-daemon": ("dhcp_daemon", "keep the leases of the plugin dhcp"),
}


def main(words: list[str] | None = None) -> int:
    return command_line.run("trivet-cni", lambda: _main(sys.argv[1:] if words is None else words))


def _main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="trivet-cni", description="Trivet's CNI plugins.")
    command_line.add_version(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, (module_name, what) in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        if name == next(iter(words), ""):
            module = importlib.import_module(f"cni_plugins.commands.{module_name}")
            module.configure(command)
            command.set_defaults(run=module.run, passes_on=getattr(module, "PASSES_ON", False))
    arguments, others = parser.parse_known_args(words)
    if others and not arguments.passes_on:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    arguments.others = others
    return int(arguments.run(arguments))


if __name__ == "__main__":
    sys.exit(main())
