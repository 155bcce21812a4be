"""What the first start makes: a customer with an app id, and an operator, each in a 0600 file of its own."""

import json
from pathlib import Path
from typing import Final

from sqlalchemy.exc import IntegrityError

from api.accounts import AccountError, Accounts
from api.digests import Role, new_secret
from api.masterkey import write_private
from recorder.settings import ConfigError, Settings

_CUSTOMER_KEYS: Final = ("customer_id", "customer_secret", "app_id")
_OPERATOR_KEYS: Final = ("operator_id", "operator_secret")


async def ensure_first_credentials(settings: Settings, accounts: Accounts) -> None:
    """When there is no customer yet: make one with one app id; likewise an operator.

    A file that is there already is used, so that a new database goes on with the credentials that are in use.

    Raises:
        ConfigError: such a file is damaged.
    """
    if not await accounts.any("customer"):
        customer_id, secret, app_id = _kept(settings.credentials_file, _CUSTOMER_KEYS)
        await _create(accounts, "customer", customer_id, secret, app_id)
    if not await accounts.any("operator"):
        await _create(accounts, "operator", *_kept(settings.operator_file, _OPERATOR_KEYS))


def still_kept(settings: Settings) -> list[tuple[Role, str, str]]:
    """Role, id and secret in the files of the first start that nobody has deleted.

    Raises:
        ConfigError: such a file is damaged.
    """
    kept: list[tuple[Role, str, str]] = []
    if settings.credentials_file.exists():
        customer_id, secret, _ = _kept(settings.credentials_file, _CUSTOMER_KEYS)
        kept.append(("customer", customer_id, secret))
    if settings.operator_file.exists():
        operator_id, secret = _kept(settings.operator_file, _OPERATOR_KEYS)
        kept.append(("operator", operator_id, secret))
    return kept


async def _create(accounts: Accounts, role: Role, owner_id: str, secret: str, app_id: str | None = None) -> None:
    try:
        await accounts.create(role, owner_id=owner_id, secret=secret, app_id=app_id, name="first")
    except (AccountError, IntegrityError):
        if not await accounts.any(role):  # else another control plane was faster
            raise


def _kept(path: Path, keys: tuple[str, ...]) -> list[str]:
    """The values of `keys` in the file, which is made when there is none."""
    if not path.exists():
        write_private(path, json.dumps({key: new_secret() for key in keys}, indent=2) + "\n")
    try:
        kept = json.loads(path.read_text("utf-8"))
        return [str(kept[key]) for key in keys]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged: it must hold {', '.join(keys)} as JSON") from error
