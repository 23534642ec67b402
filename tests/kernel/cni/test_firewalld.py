"""The plugin firewall where firewalld runs: its command, which is a script here, and what a reload forgets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime_core.errors import FailedPrecondition, NotFound, TrivetError
from tests.kernel.cni import guarded_pods
from tests.kernel.cni.guarded_pods import Guarded
from tests.kernel.cni.port_traffic import filters

_FIREWALL_CMD = """#!/bin/sh
echo "$*" >> {home}/diary
[ -e {home}/stopped ] && {{ echo "not running" >&2; exit 252; }}
case "$*" in
--state) echo running ;;
*--add-source=*) s="${{2#--add-source=}}"; touch "{home}/zone/$1 $(echo "$s" | tr / _)" ;;
*--remove-source=*) s="${{2#--remove-source=}}"; rm "{home}/zone/$1 $(echo "$s" | tr / _)" 2>/dev/null || {{ echo "Error: UNKNOWN_SOURCE" >&2; exit 19; }} ;;
*--query-source=*) s="${{2#--query-source=}}"; [ -e "{home}/zone/$1 $(echo "$s" | tr / _)" ] ;;
esac
"""


class Firewalld:
    """Its command, as far as the plugin uses it; the sources of zones are files."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        (home / "zone").mkdir(parents=True)
        (home / "firewall-cmd").write_text(_FIREWALL_CMD.format(home=home))
        (home / "firewall-cmd").chmod(0o755)
        monkeypatch.setenv("PATH", str(home), prepend=":")

    def sources(self) -> list[str]:
        return sorted(path.name.replace("_", "/") for path in (self.home / "zone").iterdir())

    def reload(self) -> None:
        for path in (self.home / "zone").iterdir():
            path.unlink()


@pytest.fixture
def guarded(tmp_path: Path, backend: str) -> Iterator[Guarded]:
    with guarded_pods.made(tmp_path, backend) as made:
        yield made


@pytest.fixture
def firewalld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Firewalld:
    return Firewalld(tmp_path / "firewalld", monkeypatch)


@pytest.mark.parametrize("backend", ["firewalld", None])
@pytest.mark.parametrize("zone", [None, "public"])
def test_firewalld(guarded: Guarded, firewalld: Firewalld, zone: str | None) -> None:
    """Chosen by name or because it runs: the pod's addresses are sources of the zone; a reload forgets them, CHECK tells and
    ADD mends; DEL takes them away, also without prevResult."""
    config = guarded.pod("c1", firewalldZone=zone)
    sources = [f"--zone={zone or 'trusted'} {address}" for address in ("10.77.0.2/32", "fd77::2/128")]
    assert firewalld.sources() == sources
    guarded.call("CHECK", config, "c1")
    guarded.call("STATUS", config, "c1")
    firewalld.reload()
    with pytest.raises(FailedPrecondition, match=f"10.77.0.2/24 in zone {zone or 'trusted'}"):
        guarded.call("CHECK", config, "c1")
    guarded.call("ADD", config, "c1")
    assert firewalld.sources() == sources
    del config["prevResult"]
    for _time in range(2):
        guarded.call("DEL", config, "c1")
        assert (firewalld.sources(), filters()) == ([], "")


@pytest.mark.parametrize("backend", ["firewalld"])
def test_gc_of_firewalld(guarded: Guarded, firewalld: Firewalld) -> None:
    """What is nobody's any more is no source either."""
    guarded.pod("c1")
    guarded.pod("stale")
    guarded.call("GC", guarded.config("", **{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}), "")
    assert firewalld.sources() == ["--zone=trusted 10.77.0.2/32", "--zone=trusted fd77::2/128"]


@pytest.mark.parametrize("backend", ["firewalld"])
def test_firewalld_that_is_not_there(guarded: Guarded, firewalld: Firewalld, monkeypatch: pytest.MonkeyPatch) -> None:
    """STATUS and ADD say so, by a kind of error that is code 50; DEL takes down what there is."""
    config = guarded.pod("c1")
    (firewalld.home / "stopped").touch()
    for verb in ("STATUS", "ADD", "CHECK"):
        with pytest.raises(TrivetError, match="firewalld does not run: not running") as error:
            guarded.call(verb, config, "c1")
        assert getattr(error.value, "code", 0) == 50
    (firewalld.home / "firewall-cmd").unlink()
    with pytest.raises(NotFound, match="firewall-cmd is not installed"):
        guarded.call("STATUS", config, "c1")
    guarded.call("DEL", config, "c1")
    assert filters() == ""
