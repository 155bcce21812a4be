"""The two HTTP applications of the control plane: the public API and the probes."""

import json
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import Gatekeeper
from api.callback_routes import callbacks_router, ncs
from api.endpoints import Endpoints
from api.errors import Fault, Gate, GatewayError, ServiceError
from api.gateway import called
from api.limits import Buckets
from api.routes import ext, mode_problem, router
from api.schemas import responses
from api.schemas.wire import explain
from api.service import Service
from api.signer import Signer
from api.storage_routes import storage_router
from api.storage_tests import StorageTests
from api.usage import UsageReports
from api.usage_routes import usage_router
from recorder.metrics import REQUESTS, exposition
from recorder.settings import Usage as UsageSettings

AREAS: Final = ("na", "eu", "ap", "cn")  # path prefixes that some clients put in front; all lead here


def create_app(
    *,
    service: Service,
    gatekeeper: Gatekeeper,
    rates: Buckets,
    usage: UsageReports,
    usage_settings: UsageSettings,
    storage_tests: StorageTests,
    signer: Signer,
    endpoints: Endpoints,
    callback_addresses: Sequence[str],
) -> FastAPI:
    app = FastAPI(
        title="Cloud Recorder",
        docs_url=None,  # the page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,  # the header is optional in the contract
    )
    app.add_middleware(_Counted)
    app.state.service = service
    app.state.usage = usage
    app.state.usage_settings = usage_settings
    app.state.endpoints = endpoints
    app.state.callback_addresses = callback_addresses
    app.state.gatekeeper = gatekeeper
    app.state.rates = rates
    app.state.storage_tests = storage_tests
    app.state.signer = signer
    for routes in (router, ncs, ext, usage_router, callbacks_router, storage_router):
        app.include_router(routes)
        for area in AREAS:
            app.include_router(routes, prefix=f"/{area}", include_in_schema=False)
    app.add_exception_handler(GatewayError, _turned_away)
    app.add_exception_handler(ServiceError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_route)
    for down in (OperationalError, InterfaceError, ConnectionError):
        app.add_exception_handler(down, _unavailable)
    app.add_exception_handler(Exception, _internal)
    return app


def create_probes(*, ready: Callable[[], Awaitable[str | None]]) -> FastAPI:
    """`ready` returns what is missing, None when nothing is. No names, no ids, no login: for the orchestrator's eyes."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/healthz")
    async def healthz() -> Response:
        return PlainTextResponse("ok\n")

    @app.get("/readyz")
    async def readyz() -> Response:
        try:
            missing = await ready()
        except (SQLAlchemyError, OSError):
            missing = "database"
        return PlainTextResponse(f"{missing} is missing\n", 503) if missing else PlainTextResponse("ok\n")

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


class _Counted:
    """Counts answers by call and status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                call = getattr(scope.get("route"), "name", "none")
                REQUESTS.labels(call, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counted)


async def _turned_away(_request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    return _gate(error.gate, error.retry_seconds)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return await _refusal(request, error.fault, error.reason, error.sid)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    details = error.errors()
    if any(detail["loc"][:2] == ("path", "mode") for detail in details):
        return await _refusal(request, Fault.INVALID_PARAMETER, mode_problem(request.path_params["mode"]))
    if any(detail["type"] == "json_invalid" or (detail["type"] == "missing" and detail["loc"] == ("body",)) for detail in details):
        return await _refusal(request, Fault.BAD_FORM)
    fault, reason = explain(details)
    if fault is Fault.INVALID_CHANNEL_NAME and not request.url.path.endswith("/acquire"):
        fault, reason = Fault.INVALID_PARAMETER, "cname: has characters that channel names cannot have"
    return await _refusal(request, fault, reason)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 413:
        return _gate(Gate.TOO_LARGE)
    if error.status_code == 400:  # the framework could not parse the body
        return await _refusal(request, Fault.BAD_FORM)
    return _gate(Gate.NO_ROUTE)  # a wrong method answers the same


async def _unavailable(_request: Request, _error: Exception) -> Response:
    return _gate(Gate.UNAVAILABLE)


async def _internal(request: Request, _error: Exception) -> Response:
    return await _refusal(request, Fault.INTERNAL)


def _gate(gate: Gate, retry_seconds: float = 1) -> Response:
    headers = {}
    if gate.value.status == 401:
        headers["WWW-Authenticate"] = "Basic"
    if gate in (Gate.TOO_MANY, Gate.UNAVAILABLE):
        headers["Retry-After"] = str(math.ceil(retry_seconds))
    return JSONResponse(responses.Message(message=gate.value.message).model_dump(), gate.value.status, headers)


async def _refusal(request: Request, fault: Fault, reason: str | None = None, sid: str | None = None) -> Response:
    cname, uid = await _identity(request)
    body = responses.Refused(
        cname=cname,
        uid=uid,
        resource_id=request.path_params.get("resourceid"),
        sid=sid or request.path_params.get("sid"),
        code=fault.value.code,
        reason=reason or fault.value.reason,
    )
    return JSONResponse(body.model_dump(exclude_none=True), fault.value.status)


async def _identity(request: Request) -> tuple[str | None, str | None]:
    """What the call says of itself, for the clients that read it from an error too."""
    try:
        body = json.loads(await called(request).body())
    except (ValueError, RecursionError, HTTPException, ClientDisconnect):
        return None, None
    names = (body.get("cname"), body.get("uid")) if isinstance(body, dict) else ()
    cname, uid = (name if isinstance(name, str) and _is_text(name) else None for name in names or (None, None))
    return cname, uid


def _is_text(name: str) -> bool:
    """JSON can escape halves of characters, which no answer can be encoded with."""
    return not any("\ud800" <= character <= "\udfff" for character in name)
