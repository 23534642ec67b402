"""Calls and volumes in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from runtime_core.interfaces.volume import Capacity
from runtime_core.serving.timings import BUCKETS, Timing

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics(timings: Mapping[tuple[str, str], Timing], overview: Mapping[str, Any], capacity: Capacity) -> str:
    lines = [*_calls(timings), *_volumes(overview["volumes"]), *_capacity(capacity)]
    lines += _family("trivet_csi_snapshots", "gauge", "Snapshots.", [({}, len(overview["snapshots"]))])
    return "\n".join(lines) + "\n"


def _calls(timings: Mapping[tuple[str, str], Timing]) -> Iterator[str]:
    yield "# HELP trivet_csi_call_seconds Time of calls by method and gRPC code."
    yield "# TYPE trivet_csi_call_seconds histogram"
    for (method, code), timing in sorted(timings.items()):
        labels = {"method": method, "code": code}
        for end, count in zip((*BUCKETS, "+Inf"), accumulate(timing.buckets), strict=True):
            yield _sample("trivet_csi_call_seconds_bucket", {**labels, "le": str(end)}, count)
        yield _sample("trivet_csi_call_seconds_sum", labels, timing.seconds)
        yield _sample("trivet_csi_call_seconds_count", labels, timing.count)


def _volumes(volumes: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    of = [({"volume_id": volume["id"], "access": volume["access"]}, volume) for volume in volumes]
    yield from _family("trivet_csi_volume_size_bytes", "gauge", "Size.", [(label, v["size"]) for label, v in of])
    used = [(label, v["used"]) for label, v in of if v["used"] is not None]
    yield from _family("trivet_csi_volume_used_bytes", "gauge", "Bytes in use, of mounted volumes.", used)
    healthy = [(label, int(not v["problems"])) for label, v in of]
    yield from _family("trivet_csi_volume_healthy", "gauge", "1 when nothing is wrong with it.", healthy)
    targets = [(label, len(v["targets"])) for label, v in of]
    yield from _family("trivet_csi_volume_targets", "gauge", "Places where it is published.", targets)


def _capacity(capacity: Capacity) -> Iterator[str]:
    yield from _family("trivet_csi_capacity_bytes", "gauge", "Size of the file system below.", [({}, capacity.total)])
    yield from _family("trivet_csi_available_bytes", "gauge", "What is left of it.", [({}, capacity.available)])


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield _sample(name, labels, value)


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inner}}} {value}" if inner else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
