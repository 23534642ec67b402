"""trivet-cni dhcp-daemon: runs the DHCP daemon of the plugin dhcp."""

from __future__ import annotations

import argparse

from runtime_core.errors import Unimplemented

#: options of `dhcp daemon` are that one's matter
PASSES_ON = True


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Takes the options of `dhcp daemon`."


def run(arguments: argparse.Namespace) -> int:
    """The executable's own command line: one daemon, two ways to start it."""
    try:
        from cni_plugins.ipam.dhcp import plugin
    except ImportError as error:
        raise Unimplemented(f"dhcp-daemon: {error}") from error
    return int(plugin.command_line(["daemon", *arguments.others]) or 0)
