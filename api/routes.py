"""The calls of the public API: what HTTP says is turned into what the service does, and back."""

import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPBasic

from api.errors import Fault, ServiceError
from api.gateway import Guarded, caller
from api.schemas import responses
from api.schemas.requests import (
    AcquireRequest,
    StartIndividualRequest,
    StartMixRequest,
    StopRequest,
    UpdateLayoutRequest,
    UpdateRequest,
)
from api.service import Caller, Service, Target
from recorder.spec import RecordingSpec

RECORDING = "/v1/apps/{appid}/cloud_recording"
RESOURCE = RECORDING + "/resourceid/{resourceid}"
TASK = RESOURCE + "/sid/{sid}/mode/{mode}"

_REFUSED: dict[str, Any] = {"model": responses.Refused}
_COMMON: dict[int | str, dict[str, Any]] = {
    400: {"model": responses.Refused | responses.Message, "description": "Invalid parameter, or a state that does not allow the call"},
    500: _REFUSED | {"description": "Internal error, or no node takes the recording"},
    "default": {"model": responses.Message, "description": "The gateway turns the call away"},
}
_PARTIAL: dict[int | str, dict[str, Any]] = {
    206: _REFUSED | {"description": "The outcome is not known yet, or nothing was recorded"},
}
_FOUND: dict[int | str, dict[str, Any]] = {
    **_PARTIAL,
    404: {"model": responses.Refused | responses.Message, "description": "There is no such recording, or it has ended"},
    504: _REFUSED | {"description": "The recording's node is not reachable"},
}

router = APIRouter(
    route_class=Guarded,
    dependencies=[Depends(HTTPBasic(auto_error=False, description="customer id and customer secret"))],
    responses=_COMMON,
)
_GONE: dict[int | str, dict[str, Any]] = {404: _REFUSED | {"description": "There is no such recording, or it ended long ago"}}
ext = APIRouter(route_class=Guarded, dependencies=router.dependencies, responses=_COMMON | _GONE)


async def service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


def new_sid() -> str:
    return secrets.token_hex(16)


CallerOf = Annotated[Caller, Depends(caller)]
ServiceOf = Annotated[Service, Depends(service)]
Mode = Literal["individual", "mix"]


@router.post(RECORDING + "/acquire", response_model=responses.Acquired)
async def acquire(appid: str, body: AcquireRequest, who: CallerOf, doing: ServiceOf) -> responses.Acquired:
    """Get a resourceId; it can be started within five minutes."""
    wanted = body.client_request
    resource_id = await doing.acquire(
        who,
        channel=body.cname,
        uid=body.uid,
        scene=wanted.scene,
        expires_hours=wanted.resource_expired_hour,
        parameters=wanted.start_parameter,
    )
    return responses.Acquired(cname=body.cname, uid=body.uid, resource_id=resource_id)


_START: dict[int | str, dict[str, Any]] = {**_PARTIAL, 201: _REFUSED | {"description": "Already started with this resourceId"}}


@router.post(RESOURCE + "/mode/mix/start", responses=_START)
async def start_mix(
    *, appid: str, resourceid: str, body: StartMixRequest, request: Request, who: CallerOf, doing: ServiceOf
) -> responses.Started:
    """Record everybody into one picture."""
    return await _start(doing, who, resourceid, body.to_spec(sid=new_sid(), app_id=who.app_id), request)


@router.post(RESOURCE + "/mode/individual/start", responses=_START)
async def start_individual(
    *, appid: str, resourceid: str, body: StartIndividualRequest, request: Request, who: CallerOf, doing: ServiceOf
) -> responses.Started:
    """Record each user alone."""
    return await _start(doing, who, resourceid, body.to_spec(sid=new_sid(), app_id=who.app_id), request)


async def _start(doing: Service, who: Caller, resource_id: str, spec: RecordingSpec, request: Request) -> responses.Started:
    parameters = (await request.json())["clientRequest"]  # as it was sent, to compare with acquire's startParameter
    await doing.start(who, resource_id, spec, parameters)
    return responses.Started(cname=spec.channel, uid=str(spec.uid), resource_id=resource_id, sid=spec.sid)


@router.get(TASK + "/query", response_model_exclude_none=True, responses=_FOUND)
async def query(*, appid: str, resourceid: str, sid: str, mode: Mode, who: CallerOf, doing: ServiceOf) -> responses.QueryAnswer:
    """How a recording is doing, and which files it has."""
    return responses.query_answer(resourceid, await doing.query(Target(who, resourceid, sid, mode)))


@router.post(TASK + "/update", responses=_FOUND)
async def update(
    *, appid: str, resourceid: str, sid: str, mode: Mode, body: UpdateRequest, who: CallerOf, doing: ServiceOf
) -> responses.Started:
    """Replace whose audio and video is recorded, or the keys of the bucket."""
    target = _target(who, resourceid, sid, mode, body)
    await doing.update(target, subscription=body.subscription, storage=body.storage, problem=body.problem)
    return responses.Started(cname=body.cname, uid=body.uid, resource_id=resourceid, sid=sid)


@router.post(RESOURCE + "/sid/{sid}/mode/mix/updateLayout", responses=_FOUND)
async def update_layout(
    *, appid: str, resourceid: str, sid: str, body: UpdateLayoutRequest, who: CallerOf, doing: ServiceOf
) -> responses.Started:
    """Replace the whole layout; what is not sent goes back to its default."""
    await doing.set_layout(_target(who, resourceid, sid, "mix", body), body.client_request.to_layout())
    return responses.Started(cname=body.cname, uid=body.uid, resource_id=resourceid, sid=sid)


@router.post(TASK + "/stop", response_model_exclude_none=True, responses=_FOUND)
async def stop(
    *, appid: str, resourceid: str, sid: str, mode: Mode, body: StopRequest, who: CallerOf, doing: ServiceOf
) -> responses.StopAnswer:
    """End a recording; unless async_stop is true, answer when all files are stored (20 s at most)."""
    target = _target(who, resourceid, sid, mode, body)
    return responses.stop_answer(resourceid, await doing.stop(target, wait=not body.client_request.async_stop))


@router.post(RESOURCE + "/mode/{mode}/start", include_in_schema=False)
@router.post(RESOURCE + "/sid/{sid}/mode/{mode}/updateLayout", include_in_schema=False)
async def no_such_mode(mode: str) -> None:
    """Start and updateLayout have a route for each mode they know; here end all others."""
    raise ServiceError(Fault.INVALID_PARAMETER, mode_problem(mode))


@ext.get("/v1/ext/recordings/{sid}", response_model_exclude_none=True)
async def recording(sid: str, who: CallerOf, doing: ServiceOf) -> responses.Told:
    """How a recording is doing or why it ended and when, until seven days after its end."""
    return responses.told(await doing.tell(who.customer_id, sid))


def mode_problem(mode: str) -> str:
    match mode:
        case "web":
            return "mode: web page recording is not supported"
        case "individual":
            return "mode: only mix has a layout"
        case _:
            return "mode: must be individual or mix"


def _target(who: Caller, resource_id: str, sid: str, mode: Mode, body: UpdateRequest | UpdateLayoutRequest | StopRequest) -> Target:
    return Target(who, resource_id, sid, mode, channel=body.cname, uid=body.uid)
