"""Hostile calls of all CSI RPCs against a driver with live volumes, each made from a right one that differs in one to
three fields."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.daemon import summary
from runtime_core.kernel import mounts
from tests.support.csi_daemon import DRIVER, MIB, NODE, Mode, capability
from tests.support.csi_lifecycle import devices, read, write
from tests.support.csi_pods import Pods
from tests.support.hostile_messages import STRINGS, mutate

#: what no request may cause, whatever is in it; a lost connection is UNAVAILABLE
FORBIDDEN = ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "CANCELLED", "DEADLINE_EXCEEDED")
_CALL_SECONDS = 20.0
_SIZE = 16 * MIB
#: RPCs that make, mount or delete something come more often than those that look
_FREQUENT = (
    "CreateVolume", "DeleteVolume", "NodeStageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume",
    "ControllerExpandVolume", "CreateSnapshot", "ControllerPublishVolume", "CreateVolumeGroupSnapshot",
)  # fmt: skip
_INLINE = {"csi.storage.k8s.io/ephemeral": "true", "size": "16Mi"}
_CONTENT = os.urandom(MIB)


@dataclass(slots=True)
class Finding:
    """A call that was not answered as it must be, with all that is needed to have it again."""

    seed: str
    rpc: str
    done: list[str]
    code: str
    details: str


@dataclass(slots=True)
class Report:
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


class CsiFuzz:
    """One driver; a volume of each kind that lives in a pod, snapshots of them; calls until a deadline."""

    def __init__(self, pods: Pods, parameters: dict[str, str]) -> None:
        """`parameters`: of CreateVolume, those that the back end needs here."""
        self._pods, self._daemon, self._parameters = pods, pods.daemon, parameters
        self._methods = {
            method.name: (service, method)
            for service in csi.DESCRIPTOR.services_by_name.values()
            for method in service.methods
        }  # fmt: skip
        #: kind → (volume, path where a pod has it)
        self._live: dict[str, tuple[str, Path]] = {}
        self._snapshots: list[str] = []
        self._kept: set[str] = set()
        self._strings: tuple[str, ...] = STRINGS
        self._number = 0

    def open(self, *kinds: str) -> None:
        """The live volumes: "mount" and "block" as far as the back end has them, and "inline"."""
        for kind in kinds:
            volume = self._pods.create(kind, capability(kind), _SIZE, parameters=self._parameters)
            self._live[kind] = (volume, self._pods.publish(volume))
            self._snapshots += [self._daemon.snapshot(f"{kind}-{number}", volume).snapshot_id for number in range(2)]
        inline = "csi-" + "a" * 64
        request = csi.NodePublishVolumeRequest(
            volume_id=inline, target_path=str(self._pods.target("inline")), volume_capability=capability(),
            volume_context={**_INLINE, **self._parameters},
        )  # fmt: skip
        self._pods.node.NodePublishVolume(request)
        self._live["inline"] = (inline, self._pods.target("inline"))
        self._write()
        self._kept = {volume for volume, _path in self._live.values()}
        self._strings = (*STRINGS, *self._own_strings())

    def _own_strings(self) -> list[str]:
        """What means something to this driver; nothing with which a right call would take a live volume away."""
        kubelet = self._daemon.kubelet
        (kubelet / "pods" / "file").write_text("kept")
        (kubelet / "pods" / "link").symlink_to("/etc")
        paths = [f"{kubelet}/pods/{name}" for name in ("x", "file", "file/x", "link", "link/x", "x/..", "../pods/x", "a" * 256)]
        ids = ["vol-" + "0" * 32, "snap-" + "0" * 32, "group-" + "0" * 32, "eph-" + "0" * 32, "vol-../" + "0" * 29]
        words = [NODE, DRIVER, "ext4", "xfs", "btrfs", "ro", "noexec", "context=x,y", "allocation", "full", "size", "1Ti", "16Mi"]
        return [*paths, str(kubelet), *ids, *words]

    def _write(self) -> None:
        for kind, (_volume, path) in self._live.items():
            if kind == "block":
                write(path, _CONTENT)
            else:
                (path / "content").write_bytes(_CONTENT)

    def damaged(self) -> list[str]:
        """Kinds of the live volumes that do not hold what was written to them."""
        found = []
        for kind, (_volume, path) in self._live.items():
            content = read(path, MIB) if kind == "block" else (path / "content").read_bytes()
            if hashlib.sha256(content).digest() != hashlib.sha256(_CONTENT).digest():
                found.append(kind)
        return found

    # -- the calls

    def run(self, seconds: float, seed: int) -> Report:
        """Calls for `seconds`; the n-th of a seed is the same in each run, but for ids."""
        report = Report()
        deadline, number = time.monotonic() + seconds, 0
        while time.monotonic() < deadline:
            self.once(f"{seed}:{number}", report)
            number += 1
        return report

    def once(self, seed: str, report: Report) -> None:
        """One hostile call; what it and its preparation made is gone afterwards."""
        rng = Random(seed)
        self._number += 1
        names = sorted(self._methods)
        rpc = rng.choice(_FREQUENT) if rng.random() < 0.6 else rng.choice(names)
        request = self._right(rpc, rng)
        done = mutate(request, rng, strings=self._strings)
        for answer in (self._call(rpc, request), self._call(rpc, request)):  # and the caller's retry
            report.calls[rpc, answer[0]] += 1
            if answer[0] in FORBIDDEN:
                report.findings.append(Finding(seed, rpc, done, *answer))
        self._clean(getattr(request, "staging_target_path", ""))

    def _call(self, rpc: str, request: Any) -> tuple[str, str]:
        service, method = self._methods[rpc]
        make: Any = self._daemon.channel.unary_stream if method.server_streaming else self._daemon.channel.unary_unary
        call = make(
            f"/{service.full_name}/{rpc}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        try:
            answer = call(request, timeout=_CALL_SECONDS)
            if method.server_streaming:
                list(answer)
        except grpc.RpcError as refused:
            return refused.code().name, refused.details() or ""  # type: ignore[attr-defined]
        return "OK", ""

    def _right(self, rpc: str, rng: Random) -> Any:
        """A request that would be served; of what it would take away there is one for it alone."""
        request = GetMessageClass(self._methods[rpc][1].input_type)()
        make: Callable[[Any, Random], None] | None = getattr(self, f"_right_{rpc}", None)
        if make is not None:
            make(request, rng)
            return request
        volume, path = self._live[rng.choice(sorted(self._live))]
        for name, value in (
            ("volume_id", volume), ("volume_path", str(path)), ("node_id", NODE), ("snapshot_id", rng.choice(self._snapshots)),
        ):  # fmt: skip
            if name in request.DESCRIPTOR.fields_by_name:
                setattr(request, name, value)
        return request

    def _right_CreateVolume(self, request: Any, rng: Random) -> None:
        request.name = f"fuzz{self._number}"
        request.capacity_range.required_bytes = _SIZE
        request.volume_capabilities.add().CopyFrom(self._how(rng))
        request.parameters.update(self._parameters)
        if rng.random() < 0.3:
            request.volume_content_source.snapshot.snapshot_id = rng.choice(self._snapshots)
        elif rng.random() < 0.3:
            request.volume_content_source.volume.volume_id = self._live[rng.choice(self._kinds())][0]
        if rng.random() < 0.3:
            request.accessibility_requirements.requisite.add().segments[f"topology.{DRIVER}/node"] = NODE

    def _right_DeleteVolume(self, request: Any, rng: Random) -> None:
        request.volume_id = self._new(rng)[0]

    def _right_ControllerPublishVolume(self, request: Any, rng: Random) -> None:
        request.volume_id, how = self._new(rng)
        request.node_id = NODE
        request.volume_capability.CopyFrom(how)

    def _right_ControllerUnpublishVolume(self, request: Any, rng: Random) -> None:
        self._right_ControllerPublishVolume(attach := csi.ControllerPublishVolumeRequest(), rng)
        self._daemon.controller.ControllerPublishVolume(attach)
        request.volume_id, request.node_id = attach.volume_id, NODE

    def _right_ValidateVolumeCapabilities(self, request: Any, rng: Random) -> None:
        kind = rng.choice(self._kinds())
        request.volume_id = self._live[kind][0]
        request.volume_capabilities.add().CopyFrom(capability(kind))

    def _right_ControllerExpandVolume(self, request: Any, rng: Random) -> None:
        request.volume_id, how = self._new(rng)
        request.capacity_range.required_bytes = 2 * _SIZE
        request.volume_capability.CopyFrom(how)

    def _right_ControllerModifyVolume(self, request: Any, rng: Random) -> None:
        request.volume_id = self._new(rng)[0]
        request.mutable_parameters["allocation"] = "full"

    def _right_CreateSnapshot(self, request: Any, rng: Random) -> None:
        request.name = f"fuzz{self._number}"
        request.source_volume_id = self._live[rng.choice(self._kinds())][0]

    def _right_DeleteSnapshot(self, request: Any, rng: Random) -> None:
        self._right_CreateSnapshot(made := csi.CreateSnapshotRequest(), rng)
        request.snapshot_id = self._daemon.controller.CreateSnapshot(made).snapshot.snapshot_id

    def _right_CreateVolumeGroupSnapshot(self, request: Any, rng: Random) -> None:
        request.name = f"fuzz{self._number}"
        request.source_volume_ids.append(self._live[rng.choice(self._kinds())][0])

    def _right_GetVolumeGroupSnapshot(self, request: Any, rng: Random) -> None:
        self._right_CreateVolumeGroupSnapshot(made := csi.CreateVolumeGroupSnapshotRequest(), rng)
        group = self._daemon.groups.CreateVolumeGroupSnapshot(made).group_snapshot
        request.group_snapshot_id = group.group_snapshot_id
        request.snapshot_ids.extend(one.snapshot_id for one in group.snapshots)

    _right_DeleteVolumeGroupSnapshot = _right_GetVolumeGroupSnapshot

    def _right_GetMetadataDelta(self, request: Any, rng: Random) -> None:
        request.base_snapshot_id, request.target_snapshot_id = self._snapshots[-2:]

    def _right_NodeStageVolume(self, request: Any, rng: Random) -> None:
        volume, how = self._new(rng, attached=True)
        request.volume_id, request.staging_target_path = volume, self._staging(volume)
        request.volume_capability.CopyFrom(how)

    def _right_NodePublishVolume(self, request: Any, rng: Random) -> None:
        request.target_path = str(self._pods.target(f"fuzz{self._number}"))
        if rng.random() < 0.3:
            request.volume_id = f"csi-{self._number:064x}"
            request.volume_capability.CopyFrom(capability())
            request.volume_context.update({**_INLINE, **self._parameters})
            return
        self._staged(stage := csi.NodeStageVolumeRequest(), rng)
        request.volume_id, request.staging_target_path = stage.volume_id, stage.staging_target_path
        request.volume_capability.CopyFrom(stage.volume_capability)

    def _right_NodeUnpublishVolume(self, request: Any, rng: Random) -> None:
        self._right_NodePublishVolume(publish := csi.NodePublishVolumeRequest(), rng)
        self._pods.node.NodePublishVolume(publish)
        request.volume_id, request.target_path = publish.volume_id, publish.target_path

    def _right_NodeUnstageVolume(self, request: Any, rng: Random) -> None:
        self._staged(stage := csi.NodeStageVolumeRequest(), rng)
        request.volume_id, request.staging_target_path = stage.volume_id, stage.staging_target_path

    def _right_NodeExpandVolume(self, request: Any, rng: Random) -> None:
        kind = rng.choice(self._kinds())
        request.volume_id, request.volume_path = self._live[kind][0], str(self._live[kind][1])
        request.capacity_range.required_bytes = _SIZE
        request.volume_capability.CopyFrom(capability(kind))

    # -- what they need, and its end

    def _kinds(self) -> list[str]:
        return [kind for kind in ("block", "mount") if kind in self._live]

    def _how(self, rng: Random) -> csi.VolumeCapability:
        return capability(rng.choice(self._kinds()), rng.choice((Mode.SINGLE_NODE_WRITER, Mode.MULTI_NODE_MULTI_WRITER)))

    def _new(self, rng: Random, *, attached: bool = False) -> tuple[str, csi.VolumeCapability]:
        how = self._how(rng)
        made = self._daemon.create(f"fuzz{self._number}-", _SIZE, volume_capabilities=[how], parameters=self._parameters)
        volume = str(made.volume_id)
        if attached:
            attach = csi.ControllerPublishVolumeRequest(volume_id=volume, node_id=NODE, volume_capability=how)
            self._daemon.controller.ControllerPublishVolume(attach)
        return volume, how

    def _staged(self, request: Any, rng: Random) -> None:
        self._right_NodeStageVolume(request, rng)
        self._pods.node.NodeStageVolume(request)

    def _staging(self, volume: str) -> str:
        path = self._daemon.kubelet / "staging" / volume
        path.mkdir(exist_ok=True)
        return str(path)

    def _clean(self, staging: str) -> None:
        """Nothing but the live ones stays. `staging`: where the last call may have staged a volume."""
        for volume in self._volumes():
            if (volume["name"] if volume["ephemeral"] else volume["id"]) not in self._kept:
                self._end(volume, staging)
        for snapshot in self._overview()["snapshots"]:
            if snapshot["group"]:
                self._end_group(snapshot["group"])
            elif snapshot["id"] not in self._snapshots:
                self._daemon.controller.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=snapshot["id"]))

    def _volumes(self) -> list[Any]:
        return list(self._overview()["volumes"])

    def _overview(self) -> Struct:
        call = self._daemon.channel.unary_unary(
            f"/{summary.NAME}/List", request_serializer=Empty.SerializeToString, response_deserializer=Struct.FromString
        )
        return call(Empty(), timeout=_CALL_SECONDS)

    def _end(self, volume: Any, staging: str) -> None:
        node, controller = self._pods.node, self._daemon.controller
        name = volume["name"] if volume["ephemeral"] else volume["id"]
        for target in volume["targets"]:
            node.NodeUnpublishVolume(csi.NodeUnpublishVolumeRequest(volume_id=name, target_path=target))
        if volume["ephemeral"]:
            return
        for path in filter(None, (self._staging(name), staging)):
            request = csi.NodeUnstageVolumeRequest(volume_id=name, staging_target_path=path)
            code, details = self._call("NodeUnstageVolume", request)
            assert code in ("OK", "INVALID_ARGUMENT"), f"{code} {details}"
        os.rmdir(self._staging(name))
        for there in volume["nodes"]:
            controller.ControllerUnpublishVolume(csi.ControllerUnpublishVolumeRequest(volume_id=name, node_id=there))
        controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=name))

    def _end_group(self, group: str) -> None:
        members = [one["id"] for one in self._overview()["snapshots"] if one["group"] == group]
        request = csi.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group, snapshot_ids=members)
        self._daemon.groups.DeleteVolumeGroupSnapshot(request)

    def footprint(self) -> Counter[str]:
        """What the driver has of the machine: descriptors, threads, children, mounts, loop devices, files and rows."""
        pid = self._daemon.pid
        found: Counter[str] = Counter()
        found["descriptors"] = len(os.listdir(f"/proc/{pid}/fd"))
        found["threads"] = len(os.listdir(f"/proc/{pid}/task"))
        found["children"] = len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        found["loop devices"] = len(devices(self._daemon))
        for directory in (self._daemon.kubelet, self._daemon.directory):
            found.update(f"mount {point}" for point in mounts.current_mount_points() if f"{point}/".startswith(f"{directory}/"))
        for folder, names, files in os.walk(self._daemon.directory):
            found.update(f"file {folder}/{name}" for name in (*names, *files) if not name.startswith("state.db"))
        return found
