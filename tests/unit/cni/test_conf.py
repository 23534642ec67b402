"""Configuration lists: which is taken, and what is refused before anything runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from runtime_core.cni import conf
from runtime_core.errors import InvalidArgument, NotFound

_GOOD = {"cniVersion": "1.0.0", "name": "good", "plugins": [{"type": "bridge"}]}


def _write(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "kind", ["../evil", "/bin/sh", "a/b", "..", ".", "", ".hidden", "a b", "a\n", "a\0", None, 5, ["bridge"], {"x": 1}]
)
def test_a_type_is_a_bare_file_name(kind: Any) -> None:
    """CVE-2021-20206: nothing outside the bin directories is ever executed; ipam.type is held to it when it is called."""
    with pytest.raises(InvalidArgument, match=r"plugins\[1\].type"):
        conf.parse({**_GOOD, "plugins": [{"type": "bridge"}, {"type": kind}]}, "x")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": None}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"cniVersion": "2.0.0"}, "cniVersion"),
        ({"cniVersion": 1}, "cniVersion"),
        ({"cniVersions": "1.0.0"}, "cniVersions"),
        ({"plugins": []}, "plugins"),
        ({"plugins": None}, "plugins"),
        ({"plugins": {"type": "bridge"}}, "plugins"),
        ({"plugins": ["bridge"]}, r"plugins\[0\]"),
        ({"plugins": [{"type": "bridge", "ipam": "host-local"}]}, r"plugins\[0\].ipam"),
        ({"plugins": [{"type": "bridge", "capabilities": ["dns"]}]}, r"plugins\[0\].capabilities"),
        ({"disableCheck": "maybe"}, "disableCheck"),
        ({"disableGC": 1}, "disableGC"),
    ],
)
def test_a_bad_list_is_refused_by_its_field(change: dict[str, Any], field: str) -> None:
    """With where it stands."""
    with pytest.raises(InvalidArgument, match=f"the-file: {field}"):
        conf.parse({**_GOOD, **change}, "the-file")


def test_a_list_without_plugins_that_is_no_plugin(tmp_path: Path) -> None:
    """It says what is missing."""
    with pytest.raises(InvalidArgument, match="plugins is missing"):
        conf.parse({"name": "x", "cniVersion": "1.0.0"}, "x")


def test_a_single_configuration_is_a_list_of_one() -> None:
    """With its own name and version."""
    network = conf.parse({"cniVersion": "0.3.1", "name": "one", "type": "bridge", "mtu": 1400}, "x")
    assert (network.name, network.version, len(network.plugins)) == ("one", "0.3.1", 1)
    assert network.plugins[0]["mtu"] == 1400


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [
        (["0.4.0", "1.1.0", "1.0.0"], "1.1.0"),
        (["1.0.0", "7.0.0"], "1.0.0"),
        (["0.2.0"], "0.4.0"),
        (["7.0.0"], "0.4.0"),
        ([], "0.4.0"),
    ],
)
def test_the_newest_common_version_is_spoken(versions: list[str], chosen: str) -> None:
    """Of cniVersions, to which cniVersion counts."""
    assert conf.parse({**_GOOD, "cniVersion": "0.4.0", "cniVersions": versions}, "x").version == chosen


def test_the_first_valid_file_by_name_is_taken(tmp_path: Path) -> None:
    """Of .conflist, .conf and .json; a bad file before it does not hide it."""
    _write(tmp_path / "00-note.txt", {**_GOOD, "name": "note"})
    (tmp_path / "05-broken.conflist").write_text("{")
    _write(tmp_path / "20-second.conflist", {**_GOOD, "name": "second"})
    _write(tmp_path / "10-first.conf", {"cniVersion": "1.0.0", "name": "first", "type": "bridge"})
    network = conf.load_first(tmp_path)
    assert network is not None
    assert network.name == "first"


def test_plugins_from_the_directory_of_the_network(tmp_path: Path) -> None:
    """They follow the list's own, by file name; a list may have none of its own."""
    (tmp_path / "good").mkdir()
    _write(tmp_path / "good" / "20-b.conf", {"type": "b"})
    _write(tmp_path / "good" / "10-a.conf", {"type": "a"})
    _write(tmp_path / "good" / "30-list.conflist", {"type": "c"})
    for document in (_GOOD, {"cniVersion": "1.0.0", "name": "good"}):
        _write(tmp_path / "10.conflist", document)
        network = conf.load(tmp_path / "10.conflist")
        assert [plugin["type"] for plugin in network.plugins] == ["bridge", "a", "b"][0 if document is _GOOD else 1 :]


def test_only_inlined_plugins(tmp_path: Path) -> None:
    """The directory is not looked at; then the list must have plugins."""
    (tmp_path / "good").mkdir()
    _write(tmp_path / "good" / "10-a.conf", {"type": "a"})
    _write(tmp_path / "10.conflist", {**_GOOD, "loadOnlyInlinedPlugins": True})
    assert [plugin["type"] for plugin in conf.load(tmp_path / "10.conflist").plugins] == ["bridge"]
    _write(tmp_path / "10.conflist", {"cniVersion": "1.0.0", "name": "good", "loadOnlyInlinedPlugins": True})
    with pytest.raises(InvalidArgument, match="plugins is missing"):
        conf.load(tmp_path / "10.conflist")


@pytest.mark.parametrize("content", ["{", '{"type": "../evil"}', "[]"])
def test_a_bad_plugin_in_the_directory_spoils_the_list(tmp_path: Path, content: str) -> None:
    """A pod is not connected by half of a chain."""
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "10-a.conf").write_text(content)
    _write(tmp_path / "10.conflist", _GOOD)
    with pytest.raises(InvalidArgument, match=r"10-a.conf|plugins\[1\]"):
        conf.load_first(tmp_path)


def test_without_files_there_is_no_network(tmp_path: Path) -> None:
    """Nor without the directory."""
    assert conf.load_first(tmp_path) is None
    assert conf.load_first(tmp_path / "missing") is None


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _too_large(path: Path) -> None:
    path.write_text('{"a": "' + "x" * 1_100_000 + '"}')


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, "not a file"),
        (_fifo, "not a file"),
        (_too_large, "larger than"),
        (lambda path: path.write_bytes(b"\xff{}"), "utf-8"),
        (lambda path: path.write_text("[" * 100_000), "recursion"),
        (lambda path: path.write_text(""), "Expecting value"),
        (lambda path: path.write_text("[]"), "not a JSON object"),
        (lambda path: path.symlink_to("nowhere"), "No such file"),
        (lambda path: path.symlink_to(path.name), "Too many levels"),
    ],
)
def test_what_is_no_configuration_is_said(tmp_path: Path, make: Any, message: str) -> None:
    """The file is named; nothing hangs, and nothing else is raised."""
    make(tmp_path / "10-odd.conflist")
    with pytest.raises(InvalidArgument, match=message) as raised:
        conf.load_first(tmp_path)
    assert "10-odd.conflist" in str(raised.value)


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    """InvalidArgument: it is not the same as a directory that is not there yet."""
    (tmp_path / "net.d").touch()
    with pytest.raises(InvalidArgument, match="Not a directory"):
        conf.load_first(tmp_path / "net.d")


def test_a_network_is_found_by_its_name(tmp_path: Path) -> None:
    """Lists before single configurations; a broken file beside it harms nobody, but is told of where nothing is found."""
    (tmp_path / "10-a.conf").write_text(json.dumps({"name": "net", "type": "single", "cniVersion": "1.0.0"}))
    (tmp_path / "20-b.conflist").write_text(json.dumps({**_GOOD, "name": "net"}))
    assert [plugin["type"] for plugin in conf.load_named(tmp_path, "net").plugins] == [p["type"] for p in _GOOD["plugins"]]
    with pytest.raises(NotFound, match="no network 'other'"):
        conf.load_named(tmp_path, "other")
    (tmp_path / "05-c.conflist").write_text("{")
    assert conf.load_named(tmp_path, "net").name == "net"
    with pytest.raises(InvalidArgument, match="05-c"):
        conf.load_named(tmp_path, "other")


@pytest.mark.parametrize(
    ("change", "types"),
    [
        ({}, ["a", "b"]),
        ({"cniVersion": "9.9.9"}, ["a", "b"]),
        ({"disableCheck": "maybe"}, ["a", "b"]),
        ({"plugins": [{"type": "a"}, {"type": "../b"}, 7]}, ["a"]),
        ({"plugins": [{"type": "a", "ipam": "x", "capabilities": []}]}, ["a"]),
    ],
)
def test_what_has_become_bad_can_be_taken_down(change: dict[str, Any], types: list[str]) -> None:
    """As far as it can be called; a type that is a path is not called, also then."""
    document = {"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "a"}, {"type": "b"}], **change}
    assert [plugin["type"] for plugin in conf.parse_for_removal(document, "x").plugins] == types


@pytest.mark.parametrize("document", [None, [], {"plugins": {}}, {"name": "a/b", "plugins": [{"type": "a"}]}, {"name": "net"}])
def test_what_is_no_list_at_all_cannot(document: Any) -> None:
    """There is nobody to call, or no name that may become part of a path."""
    with pytest.raises(InvalidArgument):
        conf.parse_for_removal(document, "x")
