"""The kinds of errors, with the code of each protocol.

Every error that Trivet raises on purpose is one of these; three readers map them
once: `serving/rpc_handler.py` (gRPC status), `cni_plugins/skel.py` (CNI error code) and
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
    """Root of the tree; by itself an internal error.

    `cni_code` is of CNI's list (specification section 5): 7 where the configuration asks for what cannot be here, 5 where
    files or the kernel refuse, 11 where a later try may succeed. 3 is a network namespace's alone (network/namespace.py):
    it tells a runtime that there is nothing to take down."""

    grpc_code, cni_code, exit_status = 13, 999, 1


class InvalidArgument(TrivetError):
    """A value from outside is wrong, whatever the state of the node."""

    grpc_code, cni_code = 3, 7


class DeadlineExceeded(TrivetError):
    """It took too long; the work may still go on."""

    grpc_code, cni_code = 4, 11


class NotFound(TrivetError):
    """What is named is not there."""

    grpc_code, cni_code = 5, 7


class AlreadyExists(TrivetError):
    """The name is taken, by something else than what was asked for."""

    grpc_code, cni_code = 6, 7


class PermissionDenied(TrivetError):
    """The caller, or this process, may not do it."""

    grpc_code, cni_code = 7, 5


class ResourceExhausted(TrivetError):
    """No space, no address, or over a budget."""

    grpc_code, cni_code = 8, 11


class FailedPrecondition(TrivetError):
    """Right by itself, but not in the present state; a retry alone does not help."""

    grpc_code, cni_code = 9, 7


class Aborted(TrivetError):
    """Another operation is in the way; a retry may succeed."""

    grpc_code, cni_code = 10, 11


class OutOfRange(TrivetError):
    """A size or position that cannot be had."""

    grpc_code, cni_code = 11, 7


class Unimplemented(TrivetError):
    """A call or an option that is not supported."""

    grpc_code, cni_code = 12, 7


class Unavailable(TrivetError):
    """A passing trouble: the same call may succeed later."""

    grpc_code, cni_code = 14, 11


class DataLoss(TrivetError):
    """Data is damaged, or is not what its digest says."""

    grpc_code, cni_code = 15, 5


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
    errno.EROFS: FailedPrecondition,
    errno.ENOTDIR: FailedPrecondition,
    errno.EISDIR: FailedPrecondition,
    errno.ELOOP: FailedPrecondition,
    errno.ENAMETOOLONG: FailedPrecondition,
    errno.ENOEXEC: FailedPrecondition,
    errno.EOPNOTSUPP: FailedPrecondition,
    errno.EAFNOSUPPORT: FailedPrecondition,
}


def from_oserror(error: OSError, doing: str) -> TrivetError:
    """Name a kernel refusal. EINVAL stays internal: the kernel got it from us."""
    return _BY_ERRNO.get(error.errno or 0, TrivetError)(f"{doing}: {error}")


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


def name_of_kind(error: TrivetError) -> str:
    """By which the error crosses to another process: the name in BY_NAME that is nearest to its class."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in BY_NAME)


def from_name(name: str, message: str) -> TrivetError:
    """The error that came from another process; TrivetError itself for a name that this one does not know."""
    return BY_NAME.get(name, TrivetError)(message)
