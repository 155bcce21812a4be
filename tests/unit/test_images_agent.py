"""Which images an agent fetches and when a worker hears of them; the helper is played by the test."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from recorder.agent.images import ImageFailure, Images
from recorder.protocol import ImageFailed, ImageReady
from recorder.spec import Canvas, Layout, UserBackground


class Scene:
    """Fetches end when the test lets them."""

    def __init__(self, folder: Path) -> None:
        self.fetched: Counter[str] = Counter()
        self.told: list[ImageReady] = []
        self.failed: list[ImageFailed] = []
        self.gates: dict[str, asyncio.Future[tuple[int, int]]] = {}
        self.folder = folder
        self.images = Images(folder, self._fetch, tell=self._tell, emit=self._emit)

    @property
    def urls(self) -> list[str]:
        return [image.url for image in self.told]

    def want(self, *urls: str) -> None:
        users = tuple(UserBackground(uid=uid, url=url) for uid, url in enumerate(urls, 1))
        self.images.want(Layout(user_backgrounds=users), Canvas())

    async def finish(self, url: str, size: tuple[int, int] = (64, 48)) -> None:
        self.gates.pop(url).set_result(size)
        await settled()

    async def fail(self, url: str) -> None:
        self.gates.pop(url).set_exception(ImageFailure("download", "the server answers 404"))
        await settled()

    async def _fetch(self, url: str, target: Path, canvas: Canvas) -> tuple[int, int]:
        self.fetched[url] += 1
        target.touch()
        self.gates[url] = asyncio.get_running_loop().create_future()
        return await self.gates[url]

    async def _tell(self, image: ImageReady) -> None:
        self.told.append(image)

    async def _emit(self, body: ImageFailed) -> None:
        self.failed.append(body)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)  # what goes through a thread


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    running = asyncio.create_task(scene.images.run())
    await settled()
    yield scene
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_one_url_is_fetched_once_however_often_it_is_named(scene: Scene) -> None:
    scene.want("a", "a", "b")
    await settled()
    await scene.finish("a")
    scene.want("a", "c")
    await settled()
    await scene.finish("c")
    scene.want("a")
    await settled()
    assert scene.fetched == {"a": 1, "b": 1, "c": 1}
    assert scene.urls == ["a", "c"]
    await scene.images.give(Layout(background_image="a", default_user_background_image="x"))
    assert scene.urls == ["a", "c"]  # the worker has it
    await scene.images.give(Layout(background_image="c"))
    assert scene.urls == ["a", "c", "c"]  # it forgot that one with the layout that names it no more


async def test_what_comes_after_its_layout_was_replaced_is_not_told(scene: Scene) -> None:
    scene.want("old")
    await settled()
    scene.want("new")
    await settled()
    await scene.finish("old")
    assert scene.urls == []
    scene.want("old")
    await settled()
    assert scene.fetched["old"] == 1
    assert scene.urls == ["old"]


async def test_a_new_worker_is_told_everything(scene: Scene) -> None:
    scene.want("a", "b")
    await settled()
    await scene.finish("a")
    await scene.finish("b")
    scene.images.worker_is_here()
    await settled()
    assert scene.urls[:2] == ["a", "b"]
    assert sorted(scene.urls[2:]) == ["a", "b"]


async def test_a_failure_is_reported_once_and_tried_again_by_a_later_layout(scene: Scene) -> None:
    scene.want("http://user:pw@host/x.png?secret=1")
    await settled()
    await scene.fail("http://user:pw@host/x.png?secret=1")
    scene.images.worker_is_here()
    await settled()
    assert scene.fetched.total() == 1
    scene.want("http://user:pw@host/x.png?secret=1")
    await settled()
    await scene.fail("http://user:pw@host/x.png?secret=1")
    assert scene.fetched.total() == 2
    assert scene.failed == [ImageFailed(why="download", detail="http://***@host/x.png?secret=***: the server answers 404")]
    assert list((scene.folder / "images").iterdir()) == []


async def test_a_flood_of_layouts_is_bounded(scene: Scene) -> None:
    """Two at a time; what nobody wants any more by then is not fetched; files of layouts long gone are removed."""
    for number in range(50):
        scene.want(*(f"{number}-{index}" for index in range(49)))
        await settled()
    assert scene.fetched.total() == 2
    for _ in range(60):
        for url in list(scene.gates):
            await scene.finish(url)
    assert scene.fetched.total() == 2 + 49
    for number in range(40):
        scene.want(f"last-{number}")
        await settled()
        await scene.finish(f"last-{number}")
    assert len(list((scene.folder / "images").iterdir())) <= 1 + 16 + 1


async def test_all_images_of_a_recording_together_are_bounded(scene: Scene) -> None:
    """Ten at most of this size; those that no layout names any more give way first."""
    large = (2048, 2048)
    scene.want(*(f"old-{index}" for index in range(10)))
    await settled()
    for index in range(10):
        await scene.finish(f"old-{index}", large)
    assert scene.urls == [f"old-{index}" for index in range(10)]
    scene.want(*(f"new-{index}" for index in range(11)))
    await settled()
    for index in range(11):
        await scene.finish(f"new-{index}", large)
    assert scene.urls[10:] == [f"new-{index}" for index in range(10)]
    assert [failure.why for failure in scene.failed] == ["picture"]
    assert len(list((scene.folder / "images").iterdir())) == 10
