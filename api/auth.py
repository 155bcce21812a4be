"""Who calls: customers with HTTP Basic credentials, and the app ids they own."""

import base64
import binascii
import hmac
import json
import re
import secrets
import time
from typing import Final

from sqlalchemy import select

from api.errors import Gate, GatewayError
from api.limits import Buckets
from api.masterkey import MasterKey, load_master_key, write_private
from api.store import Store
from api.tables import App, Customer
from recorder.settings import ConfigError, Settings

FAILURES_PER_MINUTE: Final = 10  # per customer id and address

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_CREDENTIAL_KEYS: Final = ("customer_id", "customer_secret", "app_id")


class Gatekeeper:
    def __init__(self, store: Store, key: MasterKey) -> None:
        self._store = store
        self._key = _digest_key(key)
        self._failures = Buckets(per_second=FAILURES_PER_MINUTE / 60, burst=FAILURES_PER_MINUTE)

    async def customer(self, authorization: str | None, address: str) -> str:
        """The id of the customer who sent this Authorization header.

        Raises:
            GatewayError: nobody did.
        """
        if authorization is None:
            raise GatewayError(Gate.NO_CREDENTIALS)
        name, secret = _basic(authorization)
        known_form = _ID.fullmatch(name)
        attempt = f"{address} {name if known_form else ''}"  # it is kept: not what a stranger made as long as a header can be
        if self._failures.empty(attempt):
            raise GatewayError(Gate.TOO_MANY)
        expected = b"\0" * 32  # compared all the same: an unknown id must not answer sooner
        async with self._store.read() as session:
            customer = await session.get(Customer, name) if known_form else None
        if customer:
            expected = customer.secret_digest
        if not hmac.compare_digest(_digest(self._key, name, secret), expected):
            self._failures.take(attempt)
            raise GatewayError(Gate.BAD_CREDENTIALS)
        return name

    async def check_app(self, customer_id: str, app_id: str) -> None:
        """Raises:
        GatewayError: it is not one of the customer's; somebody else's looks like one that does not exist.
        """
        async with self._store.read() as session:
            app = await session.get(App, app_id) if _ID.fullmatch(app_id) else None
        if app is None or app.customer_id != customer_id:
            raise GatewayError(Gate.BAD_APP)


async def ensure_first_credentials(settings: Settings, store: Store) -> None:
    """When there is no customer yet: make one with one app id, and write them into the 0600 credentials file.

    A file that is there already is used, so that a new database goes on with the credentials that are in use.

    Raises:
        ConfigError: that file is damaged.
    """
    async with store.read() as session:
        if await session.scalar(select(Customer.id).limit(1)):
            return
    path = settings.credentials_file
    if not path.exists():
        write_private(path, json.dumps({key: secrets.token_hex(16) for key in _CREDENTIAL_KEYS}, indent=2) + "\n")
    try:
        credentials = json.loads(path.read_text("utf-8"))
        customer_id, secret, app_id = (str(credentials[key]) for key in _CREDENTIAL_KEYS)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged: it must hold {', '.join(_CREDENTIAL_KEYS)} as JSON") from error
    await add_customer(store, load_master_key(settings.data_dir), customer_id=customer_id, secret=secret, app_ids=(app_id,))


async def add_customer(store: Store, key: MasterKey, *, customer_id: str, secret: str, app_ids: tuple[str, ...]) -> None:
    now_ms = time.time_ns() // 1_000_000
    digest = _digest(_digest_key(key), customer_id, secret)
    async with store.write() as session:
        session.add(Customer(id=customer_id, secret_digest=digest, created_ms=now_ms))
        await session.flush()
        session.add_all(App(id=app_id, customer_id=customer_id, created_ms=now_ms) for app_id in app_ids)


def _digest_key(key: MasterKey) -> bytes:
    return key.derive("customer secrets")


def _digest(key: bytes, customer_id: str, secret: str) -> bytes:
    return hmac.digest(key, f"{customer_id}:{secret}".encode(errors="surrogatepass"), "sha256")


def _basic(authorization: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    try:
        name, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = name = secret = ""
    if scheme.lower() != "basic" or not colon:
        raise GatewayError(Gate.BAD_CREDENTIALS)
    return name, secret
