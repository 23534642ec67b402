"""What can go wrong, and what each outside world calls it.

Every error that Trivet raises on purpose is one of these; three readers map them
once: `serving/gate.py` (gRPC status), `cni_plugins/skel.py` (CNI error code) and
the OCI command line (exit status). Cold: numbers only, no imports beyond errno.

    TrivetError                 internal, nothing better is known
    ├── InvalidArgument         the caller's value is wrong; the message names the field
    ├── NotFound
    ├── AlreadyExists
    ├── PermissionDenied
    ├── ResourceExhausted
    ├── FailedPrecondition      right call, wrong state
    ├── Aborted                 another call on this object is under way
    ├── OutOfRange
    ├── Unimplemented           a later version brings it
    ├── Unavailable             the same call may succeed later
    ├── DeadlineExceeded
    └── DataLoss                what is stored is damaged
"""

from __future__ import annotations

import errno


class TrivetError(Exception):
    """Root of the tree; by itself an internal error."""

    grpc_code, cni_code, exit_status = 13, 999, 1


class InvalidArgument(TrivetError):
    grpc_code, cni_code = 3, 7


class DeadlineExceeded(TrivetError):
    grpc_code, cni_code = 4, 11


class NotFound(TrivetError):
    grpc_code, cni_code = 5, 3


class AlreadyExists(TrivetError):
    grpc_code = 6


class PermissionDenied(TrivetError):
    grpc_code = 7


class ResourceExhausted(TrivetError):
    grpc_code, cni_code = 8, 11


class FailedPrecondition(TrivetError):
    grpc_code = 9


class Aborted(TrivetError):
    grpc_code, cni_code = 10, 11


class OutOfRange(TrivetError):
    grpc_code = 11


class Unimplemented(TrivetError):
    grpc_code = 12


class Unavailable(TrivetError):
    grpc_code, cni_code = 14, 11


class DataLoss(TrivetError):
    grpc_code = 15


_BY_ERRNO: dict[int, type[TrivetError]] = {
    errno.ENOENT: NotFound,
    errno.EEXIST: AlreadyExists,
    errno.ENOSPC: ResourceExhausted,
    errno.EDQUOT: ResourceExhausted,
    errno.EMFILE: ResourceExhausted,
    errno.ENFILE: ResourceExhausted,
    errno.EBUSY: Unavailable,
    errno.ETIMEDOUT: DeadlineExceeded,
    errno.EPERM: PermissionDenied,
    errno.EACCES: PermissionDenied,
}
#: what is wrong with a path that somebody else wrote
_OF_PATHS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)


def from_oserror(error: OSError, doing: str) -> TrivetError:
    """Name a kernel refusal. EINVAL stays internal: the kernel got it from us."""
    return _BY_ERRNO.get(error.errno or 0, TrivetError)(f"{doing}: {error}")


def from_path_error(error: OSError, field: str) -> TrivetError:
    """The same where the path is the caller's own, out of `field`: then a path that cannot be is its mistake."""
    if error.errno in _OF_PATHS:
        return InvalidArgument(f"{field}: {error}")
    return from_oserror(error, field)


def from_exception(error: Exception, doing: str) -> TrivetError:
    """Whatever was raised as one of these. What nobody foresaw is internal, and named by its type."""
    if isinstance(error, OSError):
        return from_oserror(error, doing)
    return error if isinstance(error, TrivetError) else TrivetError(f"{doing}: {type(error).__name__}: {error}")


#: class name → class, so that an error can cross a process boundary as JSON.
BY_NAME: dict[str, type[TrivetError]] = {
    kind.__name__: kind
    for kind in (
        TrivetError, InvalidArgument, DeadlineExceeded, NotFound, AlreadyExists, PermissionDenied,
        ResourceExhausted, FailedPrecondition, Aborted, OutOfRange, Unimplemented, Unavailable, DataLoss,
    )
}  # fmt: skip
