"""The recorder's own receive path: the connector of the hub, and a listener that only counts."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from recorder.channels import ChannelError, Listener, Place
from recorder.channels.hub import HubConnector
from recorder.frames import EncodedFrame, Track
from recorder.rtp.following import Signalling
from recorder.rtp.negotiation import Media
from recorder.rtp.receiver import SessionReceiver
from recorder.spec import RecordingSpec, Subscription
from tests.bench import receive
from tests.bench.receive import Room

_UID = 900


class _Listener:
    def __init__(self) -> None:
        self.frames: Counter[Track] = Counter()

    def participant_joined(self, uid: int, *, host: bool) -> None: ...

    def participant_left(self, uid: int) -> None: ...

    def track_started(self, track: Track) -> None: ...

    def track_stopped(self, track: Track) -> None: ...

    def frame(self, frame: EncodedFrame) -> None:
        self.frames[frame.track] += 1

    def interrupted(self) -> None: ...

    def lost(self, error: ChannelError) -> None:
        raise error


class _Connector(HubConnector):
    """Remembers its receivers, whose counters tell what came."""

    def __init__(self, place: Place, spec: RecordingSpec, listener: Listener) -> None:
        super().__init__(place, spec, listener)
        self.receivers: dict[int, SessionReceiver] = {}

    def whep(self, uid: int) -> Signalling:
        return _Watched(super().whep(uid), lambda receiver: self.receivers.update({uid: receiver}))


class _Watched:
    def __init__(self, signalling: Signalling, made: Callable[[SessionReceiver], None]) -> None:
        self._made = made
        self._signalling = signalling
        self.offer, self.hang_up = signalling.offer, signalling.hang_up

    def receiver(self, media: list[Media]) -> SessionReceiver:
        receiver = self._signalling.receiver(media)
        self._made(receiver)
        return receiver


def _read(connector: _Connector, listener: _Listener) -> receive.Reading:
    streams = [stream for receiver in connector.receivers.values() for stream in receiver.receptions()]
    came = sum(stream.counters.received - stream.counters.late - stream.counters.duplicates for stream in streams)
    useless = sum(receiver.counters.frames_undecodable + receiver.counters.malformed for receiver in connector.receivers.values())
    return receive.read(came, sum(stream.expected for stream in streams) - came, listener.frames.total(), useless)


async def _lost(connector: _Connector, place: Place) -> int:
    """Packets that were given up. Under loss some are always on their way again: of those missing now it is known a patience later."""
    await asyncio.sleep(2 * place.jitter_ms / 1000)
    return sum(stream.counters.lost for receiver in connector.receivers.values() for stream in receiver.receptions())


async def _run(room: Room) -> None:
    app, channel = room.path.split("/")
    listener = _Listener()
    place = Place("hub", room.hub, time.monotonic_ns(), addresses=("127.0.0.1",))
    connector = _Connector(place, RecordingSpec(sid="b" * 32, app_id=app, channel=channel, uid=_UID, mode="mix"), listener)
    await connector.join()
    connector.subscribe(Subscription())
    async with asyncio.timeout(30):
        while len(listener.frames) < 2 * len(room.uids):
            await asyncio.sleep(0.1)
    await asyncio.sleep(room.warm_seconds)
    first = _read(connector, listener)
    await asyncio.sleep(room.measured_seconds)
    last = _read(connector, listener)
    receive.tell(receive.between(first, last, missing=await _lost(connector, place), useless=last.useless - first.useless))
    await connector.leave()


if __name__ == "__main__":
    asyncio.run(_run(receive.arguments(__doc__)))
