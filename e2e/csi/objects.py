"""Kubernetes objects of the cluster's tests: volumes, claims and pods of one driver on one node."""

from __future__ import annotations

from typing import Any

from e2e.csi.cluster import DRIVER, NODE

CLASS = "trivet-e2e"
GIB = 1 << 30


def csi_driver() -> dict[str, Any]:
    """As e2e/deploy has it for clusters without an attacher."""
    return {
        "apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": DRIVER},
        "spec": {
            "attachRequired": False, "podInfoOnMount": True, "fsGroupPolicy": "File",
            "volumeLifecycleModes": ["Persistent", "Ephemeral"],
        },
    }  # fmt: skip


def storage_class() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": CLASS},
        "provisioner": DRIVER, "allowVolumeExpansion": True,
    }  # fmt: skip


def volume(name: str, handle: str, size: int, mode: str = "Filesystem", fs_type: str = "") -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": str(size)}, "accessModes": ["ReadWriteOnce"], "volumeMode": mode,
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": CLASS,
            "claimRef": {"namespace": "default", "name": name},
            "csi": {"driver": DRIVER, "volumeHandle": handle, **({"fsType": fs_type} if fs_type else {})},
        },
    }  # fmt: skip


def claim(name: str, size: int, mode: str = "Filesystem") -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "volumeMode": mode, "storageClassName": CLASS, "volumeName": name,
            "resources": {"requests": {"storage": str(size)}},
        },
    }  # fmt: skip


def pod(name: str, image: str, script: str, volumes: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    """Runs `script` and stays. A volume with volumeMode Block is named "block" and is at /dev/block; others at /NAME."""
    container: dict[str, Any] = {
        "name": "c", "image": image, "command": ["sh", "-c", f"{script}; trap 'exit 0' TERM; while :; do sleep 1; done"],
        "readinessProbe": {"exec": {"command": ["cat", "/tmp/done"]}, "periodSeconds": 1, "timeoutSeconds": 10},
        "volumeMounts": [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes if v["name"] != "block"],
        "volumeDevices": [{"name": "block", "devicePath": "/dev/block"} for v in volumes if v["name"] == "block"],
    }  # fmt: skip
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeName": NODE, "containers": [container], "volumes": volumes, "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1, **spec,
        },
    }  # fmt: skip


def claimed(name: str, claim_name: str) -> dict[str, Any]:
    return {"name": name, "persistentVolumeClaim": {"claimName": claim_name}}


def inline(name: str, size: str) -> dict[str, Any]:
    return {"name": name, "csi": {"driver": DRIVER, "volumeAttributes": {"size": size}}}
