"""What e2e/deploy holds is what a real API server takes, and what the driver understands."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from csi_driver.settings import Settings
from e2e.csi.cluster import DRIVER, Cluster, network
from plugins.volumes.loop import LoopBackend
from runtime_core import config

pytestmark = pytest.mark.timeout(3000)

_DEPLOY = Path(__file__).parents[1] / "deploy"
_FILES = sorted(path.relative_to(_DEPLOY) for path in _DEPLOY.rglob("*.yaml"))
_SNAPSHOTS = "snapshot.storage.k8s.io"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    directory = Path(tempfile.mkdtemp(prefix="trivet-e2e-"))
    with network():
        cluster = Cluster(directory)
        try:
            cluster.start_control_plane()
            for document in _documents(Path("namespace.yaml")):
                cluster.api.create("/api/v1/namespaces", document)
            cluster.api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", _snapshot_class())
            yield cluster
        finally:
            cluster.close()
    shutil.rmtree(directory)


def _documents(file: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all((_DEPLOY / file).read_text()) if document]


def _snapshot_class() -> dict[str, Any]:
    """What external-snapshotter's definition demands of a VolumeSnapshotClass."""
    fields = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "driver": {"type": "string"},
        "deletionPolicy": {"type": "string", "enum": ["Delete", "Retain"]},
        "parameters": {"type": "object", "additionalProperties": {"type": "string"}},
    }
    schema = {"type": "object", "required": ["driver", "deletionPolicy"], "properties": fields}
    names = {"kind": "VolumeSnapshotClass", "listKind": "VolumeSnapshotClassList"}
    names |= {"plural": "volumesnapshotclasses", "singular": "volumesnapshotclass"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    approved = {"api-approved.kubernetes.io": "https://github.com/kubernetes-csi/external-snapshotter/pull/814"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"volumesnapshotclasses.{_SNAPSHOTS}", "annotations": approved},
        "spec": {"group": _SNAPSHOTS, "scope": "Cluster", "names": names, "versions": [version]},
    }  # fmt: skip


@pytest.mark.parametrize("file", _FILES, ids=str)
def test_the_api_server_takes_every_manifest(cluster: Cluster, file: Path) -> None:
    """By a dry run of server-side apply, in which an unknown field is an error."""
    for document in _documents(file):
        name = document["metadata"]["name"]
        answer = cluster.api.apply(f"{_collection(cluster, document)}/{name}", document, dry_run=True)
        assert answer["metadata"]["name"] == name


def _collection(cluster: Cluster, document: dict[str, Any]) -> str:
    """Where the server keeps objects of this kind, by its own word."""
    version = document["apiVersion"]
    group = f"/apis/{version}" if "/" in version else f"/api/{version}"
    (resource,) = (
        resource
        for resource in cluster.api.get(group)["resources"]
        if resource["kind"] == document["kind"] and "/" not in resource["name"]
    )
    if not resource["namespaced"]:
        return f"{group}/{resource['name']}"
    return f"{group}/namespaces/{document['metadata']['namespace']}/{resource['name']}"


@pytest.mark.parametrize("directory", ["any-cluster", "one-node"])
def test_the_driver_understands_what_it_is_told(directory: str, tmp_path: Path) -> None:
    """Its options and its configuration file; and what the kubelet is told of it is so."""
    (told,) = _documents(Path("config.yaml"))
    path = tmp_path / "config.yaml"
    path.write_text(told["data"]["config.yaml"])
    options = _options(directory)
    settings = config.load_settings(Settings, options(path), path, "csi")
    (driver,) = _documents(Path(directory, "csidriver.yaml"))
    assert settings.driver_name == driver["metadata"]["name"] == DRIVER
    assert settings.attach is driver["spec"]["attachRequired"]
    (pods,) = _documents(Path(directory, "daemonset.yaml"))
    socket = settings.endpoint.removeprefix("unix://")
    (registrar,) = (c for c in pods["spec"]["template"]["spec"]["containers"] if c["name"] == "registrar")
    assert f"--kubelet-registration-path={socket}" in registrar["args"]
    assert settings.registration is False


def _options(directory: str) -> Any:
    (pods,) = _documents(Path(directory, "daemonset.yaml"))
    arguments = pods["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[0] == "serve"

    def parsed(path: Path) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        config.add_options(parser, Settings, path)
        return parser.parse_args([*arguments[1:], "--config", str(path)])

    return parsed


def test_classes_ask_for_what_the_driver_has(tmp_path: Path) -> None:
    """Provisioner, file system and parameters."""
    features = LoopBackend(str(tmp_path), {}).features()
    for document in _documents(Path("storageclasses.yaml")):
        assert document["provisioner"] == DRIVER
        parameters = dict(document.get("parameters", {}))
        assert parameters.pop("csi.storage.k8s.io/fstype", "ext4") in features.file_systems
        assert set(parameters) <= features.parameters
