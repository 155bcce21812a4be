"""Calls about where recordings are stored: test a bucket, correct its keys, get the key that signs manifests."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.gateway import Guarded
from api.routes import CallerOf, ServiceOf, router
from api.schemas import responses
from api.schemas.storage import StorageConfig
from api.schemas.wire import Wire
from api.signer import Signer
from api.storage_tests import StorageTests

storage_router = APIRouter(route_class=Guarded, dependencies=router.dependencies, responses=router.responses)
_CHANGED: dict[int | str, dict[str, Any]] = {
    206: {"model": responses.Refused, "description": "The keys are kept, whether the node has them is not known yet"},
    404: {"model": responses.Refused, "description": "There is no such recording, or it has nothing left to upload"},
    504: {"model": responses.Refused, "description": "The recording's node is not reachable; keys are kept, another place is not"},
}


class StorageRequest(Wire):
    storage_config: StorageConfig


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True)


class StorageTested(_Answer):
    """What a test of a bucket has shown."""

    writable: bool
    problem: str | None = Field(None, description="why it is not writable; nothing that the store said but its error code")
    verified: Literal["put", "head"] | None = Field(None, description="put: by the checksum the store enforced; head: seen afterwards, too")
    removed: bool = Field(False, description="false: the keys don't let us delete, the test object stays")


class StorageChanged(_Answer):
    sid: str


class SigningKey(_Answer):
    id: str
    algorithm: Literal["Ed25519"] = "Ed25519"
    pem: str


class SigningKeys(_Answer):
    keys: list[SigningKey]


def _tests(request: Request) -> StorageTests:
    found: StorageTests = request.app.state.storage_tests
    return found


@storage_router.post("/v1/ext/storage/test", response_model_exclude_none=True)
async def test_storage(body: StorageRequest, who: CallerOf, tests: Annotated[StorageTests, Depends(_tests)]) -> StorageTested:
    """Write a small object where recordings with this storageConfig would go, and remove it."""
    tested = await tests.test(body.storage_config.to_spec(), who.customer_id)
    return StorageTested(writable=tested.problem is None, problem=tested.problem, verified=tested.verified, removed=tested.removed)


@storage_router.post("/v1/ext/recordings/{sid}/storage", responses=_CHANGED)
async def change_storage(sid: str, body: StorageRequest, who: CallerOf, doing: ServiceOf) -> StorageChanged:
    """Correct the keys of a recording's bucket, also after its end: what waits on the node is then brought there.

    Another place is possible while nothing is stored in the first one.
    """
    await doing.change_storage(who, sid, body.storage_config.to_spec(), moved=body.storage_config.moved_from)
    return StorageChanged(sid=sid)


@storage_router.get("/v1/ext/keys")
async def keys(request: Request) -> SigningKeys:
    """The public keys that verify manifests of this deployment: the one that signs now, then those that did before."""
    signer: Signer = request.app.state.signer
    return SigningKeys(keys=[SigningKey(id=one.id, pem=one.pem) for one in signer.published()])
