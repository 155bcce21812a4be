"""The impairment relay and its signalling proxy in front of a real hub."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from recorder.rtp.packet import picture_loss_indication
from tests.impair.impairment import Conditions
from tests.impair.proxy import ImpairedHub
from tests.integration.hub_room import Roster, Subscriber, running_hub, until, whip_path
from tests.integration.test_hub_repair import RawPublisher


@pytest.fixture
async def hub() -> AsyncIterator[str]:
    async with running_hub() as url:
        yield url


async def test_media_goes_through_the_relay_alone(hub: str) -> None:
    async with ImpairedHub(hub, seed=1).running() as network, RawPublisher().publishing(network.url, 5) as publisher:
        publisher.send(1)
        async with Subscriber(network.url, 5, ("video",)) as subscriber:
            await until(lambda: publisher.keyframe_requests > 0)
            for sequence in range(2, 102):
                publisher.send(sequence)
            await until(lambda: len(subscriber.of("video")) == 100)
            assert len(network.relays) == 2
            assert network.counters("media").taken >= 200  # both ways to and from the hub
            network.set_media(Conditions(drop=lambda packet: packet.kind == "rtp"))
            for sequence in range(102, 202):
                publisher.send(sequence)
            await until(lambda: network.counters().dropped >= 100)
            await asyncio.sleep(0.1)
            assert len(subscriber.of("video")) == 100


async def test_repaired_loss_and_delay(hub: str) -> None:
    bad = Conditions(delay_ms=20, jitter_ms=20, loss=0.1)
    async with ImpairedHub(hub, seed=3).running() as network, RawPublisher().publishing(network.url, 5) as publisher:
        publisher.send(0)
        async with Subscriber(hub, 5, ("video",)) as subscriber:
            await until(lambda: publisher.keyframe_requests > 0)
            network.set_media(bad)
            for sequence in range(1, 501):
                publisher.send(sequence)
                if sequence % 10 == 0:
                    await asyncio.sleep(0.01)
            network.set_media(Conditions())
            publisher.send(501)
            await until(lambda: len(subscriber.of("video")) == 501)
            assert network.counters().lost > 20


async def test_nothing_passes_in_a_blackout(hub: str) -> None:
    async with ImpairedHub(hub, seed=1).running() as network, RawPublisher().publishing(network.url, 5) as publisher:
        publisher.send(1)
        async with Subscriber(hub, 5, ("video",)) as subscriber:
            await until(lambda: publisher.keyframe_requests > 0)
            black = asyncio.create_task(network.black_out(0.5))
            await asyncio.sleep(0.05)
            publisher.send(2)
            await black
            assert subscriber.of("video") == []
            publisher.answers_nacks = False
            publisher.send(3)
            await until(lambda: len(subscriber.of("video")) == 1)


async def test_signalling_passes_as_it_is(hub: str) -> None:
    async with ImpairedHub(hub, seed=1).running() as network, httpx.AsyncClient(base_url=network.url, trust_env=False) as client:
        roster = Roster()
        async with roster.watching(network.url):
            async with RawPublisher().publishing(network.url, 5):
                await until(lambda: 5 in roster.people)
            answer = await client.post(whip_path(5), content="nonsense", headers={"Content-Type": "application/sdp"})
            assert answer.status_code == 400
            assert "reason" in answer.json()
            assert (await client.delete("/sessions/unknown")).status_code == 404
        async with RawPublisher().publishing(network.url, 900):
            with pytest.raises(InvalidStatus) as refused:
                async with roster.watching(network.url, 900):
                    pass
            assert refused.value.response.status_code == 409


async def test_hub_follows_a_peer_whose_address_changes(hub: str) -> None:
    async with ImpairedHub(hub, seed=1).running() as network, RawPublisher().publishing(network.url, 5) as publisher:
        publisher.send(1)
        async with Subscriber(network.url, 5, ("video",)) as subscriber:
            await until(lambda: publisher.keyframe_requests > 0)
            for relay in network.relays:
                relay.move()
            ssrc = subscriber.tap.media()[0].remote_ssrcs[0]
            asked, sequence = publisher.keyframe_requests, 1
            async with asyncio.timeout(5):
                while publisher.keyframe_requests == asked or not subscriber.of("video"):
                    for tap in (publisher.tap, subscriber.tap):  # the hub learns of a new address by the reports that come from it
                        tap.send_rtcp(picture_loss_indication(1, ssrc))
                    publisher.send(sequence := sequence + 1)
                    await asyncio.sleep(0.1)
