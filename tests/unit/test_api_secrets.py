"""Keys, resourceIds, and the vault."""

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from api.masterkey import MasterKey, load_master_key
from api.resource import Resource, ResourceIdError, ResourceIds
from api.vault import Vault
from recorder.settings import ConfigError
from recorder.spec import RecordingSpec, Storage

KEY = MasterKey(b"k" * 32)
RESOURCE = Resource(
    customer_id="c" * 32,
    app_id="a" * 32,
    channel="room 1 !#$%&()+-:;<=.>?@[]^_{}|~,",
    uid="527841",
    scene=0,
    expires_hours=72,
    parameter_digest=None,
    issued_ms=1_700_000_000_000,
)
SPEC = RecordingSpec(
    sid="0" * 32,
    app_id="app",
    channel="room",
    uid=7,
    mode="mix",
    token=SecretStr("canary-token"),
    storage=Storage(vendor=11, bucket="b", access_key=SecretStr("canary-access"), secret_key=SecretStr("canary-secret")),
)


def test_a_resource_id_gives_back_what_was_sealed() -> None:
    ids = ResourceIds(KEY)
    sealed = ids.seal(RESOURCE)
    opened = ids.open(sealed)
    assert opened.resource == RESOURCE
    assert ids.open(sealed).key == opened.key
    assert ids.open(ids.seal(RESOURCE)).key != opened.key
    assert len(ids.seal(replace(RESOURCE, channel="x" * 63, parameter_digest="0" * 32))) < 400


def test_a_changed_resource_id_is_not_ours() -> None:
    ids = ResourceIds(KEY)
    sealed = ids.seal(RESOURCE)
    for at in range(len(sealed)):
        for other in "AB":
            changed = sealed[:at] + other + sealed[at + 1 :]
            try:
                # The last character may carry bits that belong to no byte: then it is the same id.
                assert ids.open(changed) == ids.open(sealed)
                assert at == len(sealed) - 1 or changed == sealed
            except ResourceIdError:
                assert changed != sealed
    with pytest.raises(ResourceIdError):
        ResourceIds(MasterKey(b"o" * 32)).open(sealed)


@given(st.text(max_size=400))
def test_nothing_else_is_a_resource_id(text: str) -> None:
    with pytest.raises(ResourceIdError):
        ResourceIds(KEY).open(text)


def test_the_vault_is_bound_to_app_and_sid() -> None:
    vault = Vault(KEY)
    sealed = vault.seal(SPEC)
    assert b"canary" not in sealed
    assert vault.open(sealed, app_id="app", sid=SPEC.sid) == SPEC
    assert vault.seal(SPEC) != sealed
    for app_id, sid in (("other", SPEC.sid), ("app", "1" * 32)):
        with pytest.raises(InvalidTag):
            vault.open(sealed, app_id=app_id, sid=sid)
    with pytest.raises(InvalidTag):
        Vault(MasterKey(b"o" * 32)).open(sealed, app_id="app", sid=SPEC.sid)


def test_the_master_key_is_made_once_and_private(tmp_path: Path) -> None:
    first = load_master_key(tmp_path / "data" / "master.key").current
    file = tmp_path / "data" / "master.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_master_key(tmp_path / "data" / "master.key").current.derive("x") == first.derive("x")
    assert first.derive("x") != first.derive("y")
    assert [path.name for path in file.parent.iterdir()] == ["master.key"]
    file.write_text("too short")
    with pytest.raises(ConfigError, match="damaged"):
        load_master_key(tmp_path / "data" / "master.key")
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod"):
        load_master_key(tmp_path / "data" / "master.key")
