"""A back end's problems with a volume as CSI tells them: 1.13's VolumeHealth, and 1.12's VolumeCondition."""

from __future__ import annotations

from collections.abc import Sequence

from csi_driver.api.v1 import csi_pb2 as csi
from runtime_core.interfaces.volume import Problem

_STATUS = {
    "ImageMissing": csi.DATA_LOSS,
    "DeviceGone": csi.INACCESSIBLE,
    "NotMounted": csi.INACCESSIBLE,
    "NotResponding": csi.INACCESSIBLE,
    "FilesystemError": csi.DEGRADED,
    "ReadOnlyRemount": csi.DEGRADED,
    "QuotaExceeded": csi.DEGRADED,
    "ExpansionPending": csi.DEGRADED,
}


def volume_health(volume_id: str, problems: Sequence[Problem]) -> csi.VolumeHealth:
    """One entry per reason; none when all is well."""
    by_reason = {problem.reason: problem for problem in reversed(problems)}
    entries = [
        csi.VolumeHealth.VolumeHealthEntry(
            status=_STATUS.get(problem.reason, csi.UNKNOWN_VOLUME_HEALTH_TYPE), reason=problem.reason, message=problem.message
        )
        for problem in reversed(by_reason.values())
    ]
    return csi.VolumeHealth(volume_id=volume_id, health_statuses=entries)


def volume_condition(problems: Sequence[Problem]) -> csi.VolumeCondition:
    """CSI 1.12: a bit and a sentence."""
    if not problems:
        return csi.VolumeCondition(abnormal=False, message="the volume is healthy")
    return csi.VolumeCondition(abnormal=True, message="; ".join(problem.message for problem in problems))
