"""What the first start makes: a customer with an app id, and an operator, each in a 0600 file of its own."""

import json
import secrets
from pathlib import Path
from typing import Final

from api.accounts import Accounts
from api.digests import new_secret
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
        await accounts.create("customer", owner_id=customer_id, secret=secret, name="first")
        await accounts.create_app(customer_id, app_id=app_id, name="first")
    if not await accounts.any("operator"):
        operator_id, secret = _kept(settings.operator_file, _OPERATOR_KEYS)
        await accounts.create("operator", owner_id=operator_id, secret=secret, name="first")


def _kept(path: Path, keys: tuple[str, ...]) -> list[str]:
    """The values of `keys` in the file, which is made when there is none."""
    if not path.exists():
        write_private(
            path, json.dumps({key: new_secret() if key.endswith("secret") else secrets.token_hex(16) for key in keys}, indent=2) + "\n"
        )
    try:
        kept = json.loads(path.read_text("utf-8"))
        return [str(kept[key]) for key in keys]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged: it must hold {', '.join(keys)} as JSON") from error
