"""What goes wrong, as callers of the HTTP API see it.

Two layers answer: the gateway (who are you, where to, how fast) with `message`, the recording service with `code` and `reason`.

    ApiError
    ├── GatewayError
    └── ServiceError
"""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int  # of HTTP
    code: int
    reason: str


class Fault(Enum):
    """Every answer of the recording service that is not a plain success."""

    INVALID_PARAMETER = Refusal(400, 2, "invalid parameter")
    ALREADY_STARTED = Refusal(201, 7, "already started")
    BAD_FORM = Refusal(400, 8, "the body is not valid JSON of content type application/json")
    EXITING = Refusal(400, 49, "invalid operation")
    UPLOAD_PENDING = Refusal(206, 50, "upload not finished")
    TASK_CONFLICT = Refusal(400, 53, "task conflict")
    UNREACHABLE = Refusal(504, 62, "request timeout")
    NOT_COMPLETED = Refusal(206, 65, "request not completed")
    INVALID_APP = Refusal(400, 400, "invalid_appid")
    INVALID_CHANNEL_NAME = Refusal(400, 401, "invalid_channel_name")
    NO_SUCH_TASK = Refusal(404, 404, "failed to find worker")
    OVER_QUOTA = Refusal(400, 406, "vendor_over_load")
    WRONG_IDENTITY = Refusal(400, 432, "appid, cname or uid do not belong to the resourceId")
    RESOURCE_EXPIRED = Refusal(400, 433, "resourceId expired")
    NO_DATA = Refusal(206, 435, "no recorded data")
    INTERNAL = Refusal(500, 500, "internal_error")
    NO_CAPACITY = Refusal(500, 502, "Failed to allocate worker")
    UNREADABLE_RESOURCE = Refusal(400, 1001, "resourceId cannot be decoded")


@dataclass(frozen=True, slots=True)
class Rejection:
    status: int  # of HTTP
    message: str


class Gate(Enum):
    """Every answer of the gateway."""

    NO_CREDENTIALS = Rejection(401, "Unauthorized")
    BAD_CREDENTIALS = Rejection(401, "Invalid authentication credentials")
    BAD_APP = Rejection(400, "appid is invalid")
    NO_ROUTE = Rejection(404, "no Route matched with those values")
    TOO_LARGE = Rejection(413, "Request size limit exceeded")
    TOO_MANY = Rejection(429, "API rate limit exceeded")
    UNAVAILABLE = Rejection(503, "The service is temporarily unavailable")


class ApiError(Exception):
    """A call is not answered as asked."""


class GatewayError(ApiError):
    """The gateway turns a call away."""

    def __init__(self, gate: Gate, *, retry_seconds: float = 1) -> None:
        super().__init__(gate.value.message)
        self.gate = gate
        self.retry_seconds = retry_seconds  # told where waiting helps


class ServiceError(ApiError):
    """The recording service refuses a call."""

    def __init__(self, fault: Fault, reason: str | None = None, *, sid: str | None = None) -> None:
        super().__init__(reason or fault.value.reason)
        self.fault = fault
        self.reason = reason or fault.value.reason
        self.sid = sid  # told to the caller beside what the call itself names
