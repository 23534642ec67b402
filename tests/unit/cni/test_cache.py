"""The attachment cache: our own files, and those that a runtime with libcni has left."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from runtime_core.cni.cache import Attachment, Cache

_CONFIG = {"cniVersion": "1.0.0", "name": "my-net", "plugins": [{"type": "bridge"}]}


def _libcni(directory: Path, network: str = "my-net", container: str = "c-1", interface: str = "eth0", **more: Any) -> Path:
    """A file as libcni 1.3 writes it."""
    document = {
        "kind": "cniCacheV1", "containerId": container, "config": base64.b64encode(json.dumps(_CONFIG).encode()).decode(),
        "ifName": interface, "networkName": network, "netns": "/run/netns/x", "cniArgs": [["A", "1"], ["B", "2"]],
        "capabilityArgs": {"portMappings": [{"hostPort": 1}]}, "result": {"cniVersion": "1.0.0", "ips": []}, **more,
    }  # fmt: skip
    directory.mkdir(exist_ok=True)
    path = directory / f"{network}-{container}-{interface}"
    path.write_text(json.dumps(document))
    return path


def test_what_libcni_has_cached_is_read(tmp_path: Path) -> None:
    """Whole, though every part of its file's name may hold a dash; and is gone once it is removed."""
    path = _libcni(tmp_path / "results")
    cache = Cache(tmp_path / "own", libcni=tmp_path / "results")
    expected = Attachment(
        container_id="c-1", interface="eth0", netns="/run/netns/x", network="my-net", config=_CONFIG, args={"A": "1", "B": "2"},
        capabilities={"portMappings": [{"hostPort": 1}]}, result={"cniVersion": "1.0.0", "ips": []},
    )  # fmt: skip
    assert cache.all() == cache.of_container("c-1") == [expected]
    assert cache.of_container("c") == []
    cache.remove("my-net", "c-1", "eth0")
    assert not path.exists()
    assert cache.all() == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"kind": "other"}', '{"kind": "cniCacheV1"}', '{"cniVersion": "0.4.0", "ips": []}']
)
def test_what_is_no_attachment_is_passed_over(tmp_path: Path, text: str) -> None:
    """A torn file, another kind, the format before cniCacheV1."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "net-c-eth0").write_text(text)
    assert Cache(tmp_path / "own", libcni=tmp_path / "results").all() == []


def test_a_file_that_says_to_be_another_one_is_passed_over(tmp_path: Path) -> None:
    """By its content it could have any file removed."""
    path = _libcni(tmp_path / "results")
    path.rename(path.with_name("other"))
    assert Cache(tmp_path / "own", libcni=tmp_path / "results").all() == []


def test_our_own_word_counts_where_both_know_an_attachment(tmp_path: Path) -> None:
    """It is listed once."""
    _libcni(tmp_path / "results")
    cache = Cache(tmp_path / "own", libcni=tmp_path / "results")
    own = Attachment(
        container_id="c-1", interface="eth0", netns="/other", network="my-net", config=_CONFIG, args={}, capabilities={}
    )
    cache.put(own)
    assert cache.all() == [own]


def test_without_that_directory_there_is_only_our_own(tmp_path: Path) -> None:
    """As in the daemon; a directory that is missing is empty."""
    assert Cache(tmp_path / "own").all() == []
    assert Cache(tmp_path / "own", libcni=tmp_path / "missing").all() == []
