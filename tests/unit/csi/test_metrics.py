"""Metrics in Prometheus' text format."""

from __future__ import annotations

from typing import Any

from csi_driver.daemon.metrics import metrics
from runtime_core.interfaces.volume import Capacity
from runtime_core.serving.timings import BUCKETS, Timings

_VOLUME: dict[str, Any] = {"id": "vol-1", "access": "mount", "size": 10, "used": 4, "targets": ["/a", "/b"], "problems": []}


def _text(timings: Timings, *volumes: dict[str, Any]) -> list[str]:
    overview = {"volumes": volumes, "snapshots": [{}, {}]}
    return metrics(timings.read(), overview, Capacity(5, 9, 1, 5)).splitlines()


def test_buckets_cumulate_up_to_the_count() -> None:
    timings = Timings()
    for seconds in (0.0001, 0.002, 0.002, 1000.0):
        timings.add("CreateVolume", "OK", seconds)
    lines = _text(timings)
    name = 'trivet_csi_call_seconds_bucket{method="CreateVolume",code="OK",le="%s"} %d'
    assert name % (BUCKETS[0], 1) in lines and name % (BUCKETS[1], 3) in lines
    assert name % (BUCKETS[-1], 3) in lines and name % ("+Inf", 4) in lines
    assert 'trivet_csi_call_seconds_count{method="CreateVolume",code="OK"} 4' in lines


def test_a_volume_has_size_use_places_and_health() -> None:
    ill = {**_VOLUME, "id": "vol-2", "used": None, "targets": [], "problems": ["ImageMissing: gone"]}
    lines = _text(Timings(), _VOLUME, ill)
    of = 'volume_id="vol-%d",access="mount"'
    assert f"trivet_csi_volume_size_bytes{{{of % 1}}} 10" in lines
    assert f"trivet_csi_volume_used_bytes{{{of % 1}}} 4" in lines
    assert not any(line.startswith("trivet_csi_volume_used_bytes") and "vol-2" in line for line in lines)
    assert f"trivet_csi_volume_healthy{{{of % 1}}} 1" in lines and f"trivet_csi_volume_healthy{{{of % 2}}} 0" in lines
    assert f"trivet_csi_volume_targets{{{of % 1}}} 2" in lines
    assert "trivet_csi_snapshots 2" in lines and "trivet_csi_available_bytes 5" in lines


def test_every_sample_has_a_type_and_labels_are_escaped() -> None:
    lines = _text(Timings(), {**_VOLUME, "id": 'a"b\\c\nd'})
    typed = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    samples = {line.partition("{")[0].partition(" ")[0] for line in lines if not line.startswith("#")}
    assert samples <= typed
    assert any(r'volume_id="a\"b\\c\nd"' in line for line in lines)
