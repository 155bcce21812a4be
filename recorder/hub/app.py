"""The hub over HTTP: WHIP (RFC 9725), WHEP (draft-ietf-wish-whep), and the roster over WebSocket."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final, Literal

from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from pydantic import ValidationError
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from recorder.hub.access import Caller, Refused, admit, check_names, read_uid
from recorder.hub.channel import RosterFull, UidTaken, Watcher
from recorder.hub.egress import Egress
from recorder.hub.hub import Hub, HubFull, NotPublishing
from recorder.hub.ingest import Ingest
from recorder.hub.messages import CLOSE_TOKEN_EXPIRED, Denial, Mute
from recorder.hub.negotiation import NoCandidate, Offer, OfferMalformed, OfferUnacceptable, read_offer
from recorder.hub.rights import ConfiguredRights, Rights
from recorder.hub.session import Session
from recorder.settings import Hub as HubSettings

_BODY_LIMIT: Final = 64 << 10
_SDP: Final = "application/sdp"
_FRAGMENT: Final = "application/trickle-ice-sdpfrag"
_GONE: Final = 1001


def create_app(settings: HubSettings, rights: Rights | None = None) -> FastAPI:
    """`rights`: what is known of apps; by default what the settings say."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Hub() as hub:
            endpoints.hub = hub
            yield

    endpoints = _Endpoints(settings, rights or ConfiguredRights(settings))
    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["GET", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"],
        allow_headers=["Authorization", "Content-Type", "If-Match"],
        expose_headers=["Location", "ETag", "Accept-Patch"],
    )
    for error in (Refused, OfferMalformed, OfferUnacceptable, NoCandidate, HubFull, NotPublishing):
        app.add_exception_handler(error, _on_refused)
    app.add_api_route("/healthz", endpoints.health, methods=["GET"])
    for path, create in (("/whip", endpoints.publish), ("/whep", endpoints.subscribe)):
        app.add_api_route(f"{path}/{{app_id}}/{{channel}}/{{uid}}", create, methods=["POST"])
        app.add_api_route(f"{path}/{{app_id}}/{{channel}}/{{uid}}", endpoints.options, methods=["OPTIONS"])
    app.add_api_route("/sessions/{session_id}", endpoints.add_candidates, methods=["PATCH"])
    app.add_api_route("/sessions/{session_id}", endpoints.end, methods=["DELETE"])
    app.add_api_route("/sessions/{session_id}", endpoints.options, methods=["OPTIONS"])
    app.add_api_route("/sessions/{session_id}/mute", endpoints.mute, methods=["PUT"])
    app.add_api_websocket_route("/roster/{app_id}/{channel}", endpoints.roster)
    return app


class _Endpoints:
    hub: Hub  # set when the app starts

    def __init__(self, settings: HubSettings, rights: Rights) -> None:
        self._rights = rights
        self._allow_loopback = any(address.startswith("127.") or address == "::1" for address in settings.addresses)

    async def health(self) -> Response:
        return JSONResponse({"status": "ok"})

    async def options(self) -> Response:
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Accept-Post": _SDP, "Accept-Patch": _FRAGMENT})

    async def publish(self, app_id: str, channel: str, uid: str, request: Request) -> Response:
        """WHIP: become the publisher `uid`."""
        number = read_uid(uid)
        expires_at = await self._admit(request, app_id, channel, number)
        offer = await self._offer(request)
        return _created(*await self.hub.publish(self.hub.channel(app_id, channel), number, offer, expires_at=expires_at))

    async def subscribe(self, app_id: str, channel: str, uid: str, request: Request) -> Response:
        """WHEP: get what `uid` publishes. The query's `uid` says as whom; without it, as whom the token names. `video=low`: the low stream
        of who sends one."""
        publisher = read_uid(uid)
        subscriber = request.query_params.get("uid")
        quality = request.query_params.get("video", "high")
        if quality not in ("high", "low"):
            raise Refused(HTTPStatus.BAD_REQUEST, "video must be high or low")
        expires_at = await self._admit(request, app_id, channel, read_uid(subscriber) if subscriber is not None else None)
        offer = await self._offer(request)
        place = self.hub.channel(app_id, channel)
        return _created(*await self.hub.subscribe(place, publisher, offer, low=quality == "low", expires_at=expires_at))

    async def add_candidates(self, session_id: str, request: Request) -> Response:
        part = self._session(session_id)
        _require_type(request, _FRAGMENT)
        expected = request.headers.get("if-match")
        if expected is None:
            raise Refused(HTTPStatus.PRECONDITION_REQUIRED, "If-Match is missing")
        if expected not in ("*", part.session.etag):
            raise Refused(HTTPStatus.PRECONDITION_FAILED, "the session has another entity tag")
        try:
            await part.session.add_candidates(await _text(request), allow_loopback=self._allow_loopback)
        except OfferUnacceptable as error:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def end(self, session_id: str) -> Response:
        self._session(session_id).session.end("asked by the client")
        return Response(status_code=HTTPStatus.OK)

    async def mute(self, session_id: str, request: Request) -> Response:
        part = self._session(session_id)
        if not isinstance(part, Ingest):
            raise Refused(HTTPStatus.NOT_FOUND, "no such session")
        try:
            part.mute(Mute.model_validate_json(await _text(request)))
        except ValidationError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, 'the body must be {"audio": true|false, "video": true|false}') from error
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def roster(self, app_id: str, channel: str, socket: WebSocket) -> None:
        try:
            uid = read_uid(socket.query_params.get("uid", ""))
            expires_at = await self._admit(socket, app_id, channel, uid)
            place = self.hub.channel(app_id, channel)
            watcher = place.watch(uid)
        except Refused as error:
            await socket.send_denial_response(_refused(error))
            return
        except UidTaken:
            await socket.send_denial_response(_refusal(HTTPStatus.CONFLICT, "the uid publishes in this channel"))
            return
        except RosterFull:
            await socket.send_denial_response(_refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the channel has too many recorders"))
            return
        try:
            await socket.accept()
            await _tell(socket, watcher, expires_at)
        finally:
            place.unwatch(watcher)

    async def _admit(self, request: HTTPConnection, app_id: str, channel: str, uid: int | None) -> float | None:
        check_names(app_id, channel)
        host = request.client.host if request.client else ""
        headers = request.headers
        caller = Caller(host, headers.get("host", ""), headers.get("origin"), headers.get("authorization"))
        return admit(await self._rights.of(app_id), caller, app_id=app_id, channel=channel, uid=uid, now=time.time())

    async def _offer(self, request: Request) -> Offer:
        _require_type(request, _SDP)
        return read_offer(await _text(request), allow_loopback=self._allow_loopback)

    def _session(self, session_id: str) -> Ingest | Egress:
        part = self.hub.session(session_id)
        if part is None:
            raise Refused(HTTPStatus.NOT_FOUND, "no such session")
        return part


async def _tell(socket: WebSocket, watcher: Watcher, expires_at: float | None) -> None:
    """Pass the roster on until the client is gone, the watcher is closed or its token has expired."""
    loop = asyncio.get_running_loop()
    expiry = loop.call_later(expires_at - time.time(), watcher.close, CLOSE_TOKEN_EXPIRED) if expires_at is not None else None
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(_until_gone(socket, watcher))
        try:
            while isinstance(message := await watcher.next(), str):
                await socket.send_text(message)
            if message != _GONE:
                await socket.close(message)
        except WebSocketDisconnect:
            pass
        finally:
            reading.cancel()
            if expiry:
                expiry.cancel()


async def _until_gone(socket: WebSocket, watcher: Watcher) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass  # clients have nothing to say
    watcher.close(_GONE)


async def _on_refused(_request: Request, error: Exception) -> Response:
    if isinstance(error, Refused):
        return _refused(error)
    if isinstance(error, HubFull):
        return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the hub or the channel is full")
    if isinstance(error, NoCandidate):
        return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the hub has no address or no socket left to offer")
    if isinstance(error, NotPublishing):
        return _refusal(HTTPStatus.NOT_FOUND, "nobody publishes with this uid")
    return _refusal(HTTPStatus.NOT_ACCEPTABLE if isinstance(error, OfferUnacceptable) else HTTPStatus.BAD_REQUEST, str(error))


def _refused(error: Refused) -> Response:
    return _refusal(error.status, error.reason, error.error)


def _refusal(status: HTTPStatus, reason: str, error: Literal["token", "token_expired"] | None = None) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "10"
    return JSONResponse(Denial(reason=reason, error=error).model_dump(exclude_none=True), status, headers)


def _created(session: Session, answer: str) -> Response:
    headers = {"Location": f"/sessions/{session.id}", "ETag": session.etag, "Accept-Patch": _FRAGMENT}
    return Response(answer, HTTPStatus.CREATED, headers, media_type=_SDP)


def _require_type(request: Request, expected: str) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != expected:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the body must be {expected}")


async def _text(request: Request) -> str:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_LIMIT:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {_BODY_LIMIT} bytes")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, "the body is not UTF-8") from error
