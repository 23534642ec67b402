"""trivet-cri's configuration: every key documented, runtime handlers checked and beside the built-in ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cri.settings import HANDLERS, RuntimeHandler, Settings
from runtime_core import config
from runtime_core.errors import InvalidArgument

_OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


@pytest.mark.parametrize("key", [field.name.replace("_", "-") for field in dataclasses.fields(Settings)])
def test_every_key_is_documented(key: str) -> None:
    """In the table of docs/operations.md."""
    assert f"| `{key}` |" in _OPERATIONS.read_text()


def test_handlers_come_beside_the_built_in_ones(tmp_path: Path) -> None:
    """A configured one may also take the place of the default handler."""
    file = tmp_path / "config.yaml"
    file.write_text("runtime-handlers:\n  runc: {runtime: oci-cli, settings: {binary: /usr/bin/runc}}\n  '': {runtime: other}")
    handlers = config.load_file(Settings, file).handlers()
    assert handlers == {
        "": RuntimeHandler(runtime="other"),
        "trivet": HANDLERS["trivet"],
        "runc": RuntimeHandler(runtime="oci-cli", settings={"binary": "/usr/bin/runc"}),
    }


@pytest.mark.parametrize(
    "text", ["pull-silence: 0", "pull-silence: -1", "pull-silence: .inf", "pull-silence: .nan", "largest-layer: 0"]
)
def test_a_limit_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    """By its key."""
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(InvalidArgument, match=f"{file}: {text.partition(':')[0]}: "):
        config.load_file(Settings, file)


@pytest.mark.parametrize("name", ["Runc", "a_b", "-a", "a" * 64, "a/b", "a.b"])
def test_a_handler_that_no_runtime_class_can_name_is_refused(name: str, tmp_path: Path) -> None:
    """With file and key."""
    file = tmp_path / "config.yaml"
    file.write_text(f"runtime-handlers: {{'{name}': {{runtime: native}}}}")
    with pytest.raises(InvalidArgument, match=f"{file}: runtime-handlers: '{name}'"):
        config.load_file(Settings, file)
