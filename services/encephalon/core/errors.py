"""The error tree of Encephalon.

    EncephalonError
    ├── Retryable                  the same call may succeed later, or elsewhere
    │   ├── Unavailable            UNAVAILABLE          the replica or store is gone or stopping
    │   ├── Overloaded             RESOURCE_EXHAUSTED   a bounded queue is full, or the deadline cannot be met
    │   └── Conflict               ABORTED              somebody else wrote first; read and try again
    └── Fatal                      the same call will fail again
        ├── InvalidInput           INVALID_ARGUMENT     what came does not fit the contract
        ├── InvalidManifest        INVALID_ARGUMENT     a brain manifest that cannot run
        ├── NotFound               NOT_FOUND
        ├── AlreadyExists          ALREADY_EXISTS
        ├── FailedPrecondition     FAILED_PRECONDITION  the system is not in a state for this call
        ├── Denied                 PERMISSION_DENIED
        ├── DeadlineExceeded       DEADLINE_EXCEEDED    the time of this request is used up
        ├── Cancelled              CANCELLED            the caller went away
        ├── Unsupported            UNIMPLEMENTED
        ├── Corrupt                DATA_LOSS            bytes that do not match their digest
        └── Internal               INTERNAL             a network or we ourselves failed

The gRPC status is said once, on the class. `core.serving` translates an error into a status with
`google.rpc.ErrorInfo`; `core.status` translates one back into the class.
"""

from __future__ import annotations

from typing import ClassVar

import grpc

__all__ = [
    "AlreadyExists",
    "Cancelled",
    "Conflict",
    "Corrupt",
    "DeadlineExceeded",
    "Denied",
    "EncephalonError",
    "FailedPrecondition",
    "Fatal",
    "Internal",
    "InvalidInput",
    "InvalidManifest",
    "NotFound",
    "Overloaded",
    "Retryable",
    "Unavailable",
    "Unsupported",
]


class EncephalonError(Exception):
    """One sentence that says what came, what was expected and what to do; `details` repeats the facts for machines."""

    status: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, str] = {name: str(value) for name, value in details.items()}

    @property
    def reason(self) -> str:
        """The machine-readable cause that goes into `google.rpc.ErrorInfo.reason`: the name of the class."""
        return type(self).__name__


class Retryable(EncephalonError):
    """The same call may succeed later, or on another replica."""


class Fatal(EncephalonError):
    """The same call will fail again until something is changed."""


class Unavailable(Retryable):
    """A replica, a store or a server cannot be reached or is stopping."""

    status = grpc.StatusCode.UNAVAILABLE


class Overloaded(Retryable):
    """A bounded queue is full, or the deadline cannot be met; come back later."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED


class Conflict(Retryable):
    """Somebody else wrote first; read again and repeat."""

    status = grpc.StatusCode.ABORTED


class InvalidInput(Fatal):
    """What came does not fit the contract."""

    status = grpc.StatusCode.INVALID_ARGUMENT


class InvalidManifest(Fatal):
    """A brain manifest that cannot run; the message names the line and the pathway."""

    status = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(Fatal):
    status = grpc.StatusCode.NOT_FOUND


class AlreadyExists(Fatal):
    status = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(Fatal):
    """The system is not in a state for this call."""

    status = grpc.StatusCode.FAILED_PRECONDITION


class Denied(Fatal):
    status = grpc.StatusCode.PERMISSION_DENIED


class DeadlineExceeded(Fatal):
    """The time of this request is used up."""

    status = grpc.StatusCode.DEADLINE_EXCEEDED


class Cancelled(Fatal):
    """The caller went away."""

    status = grpc.StatusCode.CANCELLED


class Unsupported(Fatal):
    status = grpc.StatusCode.UNIMPLEMENTED


class Corrupt(Fatal):
    """Bytes that do not match their digest."""

    status = grpc.StatusCode.DATA_LOSS


class Internal(Fatal):
    """A network, or Encephalon itself, failed."""

    status = grpc.StatusCode.INTERNAL
