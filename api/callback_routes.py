"""The customers' side of callbacks: `/v1/ext/apps/{appid}/callbacks`, and the addresses that callbacks come from."""

import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request

from api.accounts import AccountError
from api.endpoints import Endpoints, NoEndpoint
from api.errors import Fault, ServiceError
from api.gateway import Guarded
from api.routes import CallerOf, router
from api.schemas import callbacks, responses

PATH: Final = "/v1/ext/apps/{appid}/callbacks"
_ELSEWHERE: Final = ("192.0.2.1", 9)  # RFC 5737; nothing is sent there
_MOST_DEAD: Final = 1000

_NONE: dict[int | str, dict[str, Any]] = {404: {"model": responses.Refused, "description": "The app has no endpoint"}}
callbacks_router = APIRouter(route_class=Guarded, dependencies=router.dependencies, responses=router.responses | _NONE)
ncs = APIRouter(route_class=Guarded, dependencies=router.dependencies, responses=router.responses)


def _endpoints(request: Request, who: CallerOf) -> Endpoints:
    found: Endpoints = request.app.state.endpoints
    return found.of(who.actor)


EndpointsOf = Annotated[Endpoints, Depends(_endpoints)]


@callbacks_router.get(PATH, response_model_exclude_none=True)
async def callbacks_endpoint(appid: str, doing: EndpointsOf) -> callbacks.Endpoint:
    """Where the app's notices go, and how many are not delivered."""
    with _explained():
        return callbacks.endpoint(await doing.show(appid))


@callbacks_router.put(PATH, response_model_exclude_none=True)
async def set_callbacks(appid: str, body: callbacks.EndpointRequest, doing: EndpointsOf) -> callbacks.Endpoint:
    """Say where the app's notices go, and which. A new endpoint's secret is in the answer, this once."""
    with _explained():
        signing = await doing.set(appid, url=body.url, events=body.events, enabled=body.enabled)
        return callbacks.endpoint(await doing.show(appid), signing)


@callbacks_router.delete(PATH)
async def remove_callbacks(appid: str, doing: EndpointsOf) -> dict[str, str]:
    """Forget the endpoint and its secrets."""
    with _explained():
        await doing.remove(appid)
    return {}


@callbacks_router.post(PATH + "/secret", response_model_exclude_none=True)
async def rotate_callback_secret(appid: str, body: callbacks.RotateRequest, doing: EndpointsOf) -> callbacks.Rotated:
    """Sign with a new secret; the one before signs, too, for a while."""
    secret = body.secret.get_secret_value() if body.secret else None
    with _explained():
        signing = await doing.rotate(appid, secret=secret, overlap_ms=round(body.old_hours * 3_600_000))
    return callbacks.Rotated(secret=signing.secret, standard_secret=signing.standard, old_secret_until_ms=signing.old_until_ms)


@callbacks_router.post(PATH + "/test", response_model_exclude_none=True)
async def test_callbacks(appid: str, doing: EndpointsOf) -> callbacks.TestResult:
    """Send one event that tells of no recording, once, and answer how that went."""
    with _explained():
        tested = await doing.test(appid)
    return callbacks.TestResult(code=tested.code, delivered=tested.delivered, failure=tested.failure)


@callbacks_router.get(PATH + "/dead", response_model_exclude_none=True)
async def dead_callbacks(
    appid: str,
    doing: EndpointsOf,
    limit: Annotated[int, Query(ge=1, le=_MOST_DEAD)] = 100,
    after: Annotated[str | None, Query(max_length=64)] = None,
) -> callbacks.DeadLetters:
    """Notices that were given up, the newest first."""
    with _explained():
        letters = await doing.dead_letters(appid, limit=limit + 1, after=after)
    shown = letters[:limit]
    more = shown[-1].notice_id if len(letters) > limit else None
    return callbacks.DeadLetters(notices=[callbacks.dead_letter(letter) for letter in shown], next=more)


@callbacks_router.post(PATH + "/replay")
async def replay_callbacks(appid: str, body: callbacks.ReplayRequest, doing: EndpointsOf) -> callbacks.Replayed:
    """Send dead letters again, under their ids."""
    with _explained():
        return callbacks.Replayed(replayed=await doing.replay(appid, body.notice_ids))


@ncs.get("/v1/ncs/ip")
@ncs.get("/v2/ncs/ip", include_in_schema=False)
async def notification_addresses(request: Request) -> responses.NotificationHosts:
    """The addresses that notifications come from."""
    addresses: Sequence[str] = request.app.state.callback_addresses or [_own_address()]
    hosts = responses.Hosts(hosts=[responses.Address(primary_ip=address) for address in addresses])
    return responses.NotificationHosts(data=responses.NotificationService(service=hosts))


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except NoEndpoint as error:
        raise ServiceError(Fault.NO_SUCH_TASK, str(error)) from error
    except AccountError as error:
        raise ServiceError(Fault.INVALID_PARAMETER, str(error)) from error


def _own_address() -> str:
    """That of this machine on its way to others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
        except OSError:  # it has no way out
            return "127.0.0.1"
        return str(probe.getsockname()[0])
