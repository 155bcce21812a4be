"""Tells the channel hub how an app's channels are guarded."""

import logging

from cryptography.exceptions import InvalidTag

from api.accounts import ID, Certificates
from api.store import Store
from api.tables import App
from recorder import protocol
from recorder.protocol import AskApp, Refused

log = logging.getLogger(__name__)


class Apps:
    def __init__(self, store: Store, certificates: Certificates) -> None:
        self._store = store
        self._certificates = certificates

    async def answer(self, asked: AskApp) -> protocol.App | Refused:
        async with self._store.read() as session:
            app = await session.get(App, asked.app_id) if ID.fullmatch(asked.app_id) else None
        if app is None or app.removed_ms is not None:
            return Refused(reason="unknown")
        try:
            return protocol.App(certificate=self._certificates.open(app), open_channels=app.open_channels)
        except InvalidTag:
            log.exception("the certificate of an app was sealed with another master key", extra={"app": app.id})
            return Refused(reason="unknown")
