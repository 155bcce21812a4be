"""The outer layer of the public API: credentials, app id and rate are checked before a body is read."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message

from api.auth import Gatekeeper
from api.errors import Fault, Gate, GatewayError, ServiceError
from api.limits import Buckets
from api.service import Caller

LARGEST_BODY_BYTES: Final = 64 * 1024


class Guarded(APIRoute):
    """A route behind the gateway."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Any]]:  # type: ignore[override]  # FastAPI wants a Coroutine
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            limited = _limited(request)
            request.state.call = limited
            await _admit(limited)
            return await handle(limited)

        return guarded


def called(request: Request) -> Request:
    """The request whose body may be read, from an error handler too: what came over the wire can be read only once."""
    call: Request = getattr(request.state, "call", request)
    return call


async def caller(request: Request) -> Caller:
    """Who was let in. Asynchronous, because FastAPI hands other functions to a thread."""
    admitted: Caller = request.state.caller
    return admitted


def _limited(request: Request) -> Request:
    left = LARGEST_BODY_BYTES

    async def receive() -> Message:
        nonlocal left
        message = await request.receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413)  # the one kind of error that FastAPI passes on from reading a body
        return message

    return Request(request.scope, receive)


async def _admit(request: Request) -> None:
    gatekeeper: Gatekeeper = request.app.state.gatekeeper
    rates: Buckets = request.app.state.rates
    address = request.client.host if request.client else ""
    app_id = request.path_params.get("appid")
    customer_id = await gatekeeper.customer(request.headers.get("authorization"), address, app_id)
    if not rates.take(app_id or customer_id):
        raise GatewayError(Gate.TOO_MANY)
    request.state.caller = Caller(customer_id, app_id or "", address)
    content_type = request.headers.get("content-type")
    if request.method == "POST" and content_type and content_type.partition(";")[0].strip().lower() != "application/json":
        raise ServiceError(Fault.BAD_FORM)
