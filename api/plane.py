"""Puts the control plane together: database, keys, bus, service, and the two HTTP applications."""

import contextlib
from asyncio import TaskGroup
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from fastapi import FastAPI

from api.accounts import Accounts, Certificates, unix_ms
from api.app import create_app, create_probes
from api.apps import Apps
from api.audit import SERVICE
from api.auth import Gatekeeper
from api.changes import Changes
from api.clock import Steady
from api.control import ANSWER_SECONDS, LocalBus
from api.delivery import Delivery
from api.endpoints import Endpoints, Signers, open_sender
from api.first_credentials import ensure_first_credentials
from api.ledger import Ledger
from api.limits import Buckets
from api.masterkey import load_master_key
from api.notices import Notices
from api.outbox import Outbox
from api.quotas import Quotas
from api.recovery import Recovery
from api.resource import ResourceIds
from api.service import Patience, Service
from api.signer import Signer
from api.stops import Stops
from api.storage_tests import StorageTests
from api.store import Store, open_store
from api.usage import UsageReports
from api.vault import Vault
from recorder.settings import Settings


@dataclass(frozen=True, slots=True)
class ControlPlane:
    app: FastAPI
    probes: FastAPI
    store: Store
    bus: LocalBus
    recovery: Recovery
    outbox: Outbox
    endpoints: Endpoints


@contextlib.asynccontextmanager
async def open_plane(
    settings: Settings,
    *,
    now_ms: Callable[[], int] = unix_ms,
    patience: Patience | None = None,
    answer_seconds: float = ANSWER_SECONDS,
) -> AsyncIterator[ControlPlane]:
    """Everything but the TCP listeners; agents are served during the block.

    Raises:
        ConfigError: keys, credentials or database cannot be used.
    """
    key, now_ms = load_master_key(settings.key_file), Steady(now_ms)
    async with open_sender(settings.callbacks) as sender, open_store(settings.database_url) as store:
        await ensure_first_credentials(settings, Accounts(store, key, by=SERVICE))
        changes, vault, outbox, signers = Changes(), Vault(key), Outbox(), Signers(key)
        notices = Notices(outbox, late_uploads=settings.callbacks.late_uploads, now_ms=now_ms)
        ledger = Ledger(store=store, vault=vault, changes=changes, notices=notices, now_ms=now_ms)
        signer, tests = Signer(key), StorageTests(settings)
        bus = LocalBus(settings.control_socket, ledger, Apps(store, Certificates(key)), signer=signer, answer_seconds=answer_seconds)
        stops = Stops(store=store, bus=bus, changes=changes, notices=notices, now_ms=now_ms)
        recovery = Recovery(
            store=store,
            bus=bus,
            stops=stops,
            vault=vault,
            changes=changes,
            notices=notices,
            now_ms=now_ms,
            rescue_days=settings.agent.rescue_days,
            audit_days=settings.api.audit_days,
        )
        service = Service(
            store=store,
            bus=bus,
            stops=stops,
            vault=vault,
            resources=ResourceIds(key),
            quotas=Quotas(store, per_app=settings.api.max_recordings),
            changes=changes,
            notices=notices,
            now_ms=now_ms,
            patience=patience,
            start_problem=tests.start_problem if settings.api.strict_start else None,
            encrypt_media=settings.recording.encrypt_at_rest,
        )
        delivery = Delivery(store=store, outbox=outbox, sender=sender, signers=signers, schedule=settings.callbacks.retries, now_ms=now_ms)
        endpoints = Endpoints(store=store, signers=signers, sender=sender, by=SERVICE, now_ms=now_ms)
        gatekeeper = Gatekeeper(store, key, now_ms=now_ms)
        rates = Buckets(per_second=settings.api.requests_per_second)

        async def ready() -> str | None:
            await store.ping()
            return None if bus.connected else "agent"

        await stops.forget_senders()
        async with bus.listening(), TaskGroup() as group:
            lasting = [group.create_task(work) for work in (recovery.run(), delivery.run(), gatekeeper.run())]
            yield ControlPlane(
                app=create_app(
                    service=service,
                    gatekeeper=gatekeeper,
                    rates=rates,
                    usage=UsageReports(store),
                    usage_settings=settings.usage,
                    storage_tests=tests,
                    signer=signer,
                    endpoints=endpoints,
                    callback_addresses=settings.callbacks.addresses,
                ),
                probes=create_probes(ready=ready),
                store=store,
                bus=bus,
                recovery=recovery,
                outbox=outbox,
                endpoints=endpoints,
            )
            for task in lasting:
                task.cancel()
