"""trivet plugins: every driver by interface, with where it comes from."""

from __future__ import annotations

from runtime_core.registry import KINDS, installed


def list_plugins() -> None:
    """Print every installed driver by kind."""
    for kind in KINDS:
        for driver in installed(kind):
            print(f"trivet.{kind:22} {driver.name:14} {driver.entry:50} {driver.distribution}")
