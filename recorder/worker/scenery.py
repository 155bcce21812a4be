"""What a composite shows where there is no video: the layout's colour, and its images as far as they are there."""

from pathlib import Path

import numpy as np

from mixer.canvas import colour
from mixer.compositor import Compositor, Image
from mixer.picture import Picture, Planes
from recorder.protocol import IMAGES_FOLDER, ImageReady
from recorder.spec import Layout


class Scenery:
    """Dresses a compositor. An image shows when both it and the layout that names it are there, whichever comes first."""

    def __init__(self, compositor: Compositor) -> None:
        self._compositor = compositor
        self._layout = Layout()
        self._pictures: dict[str, Picture] = {}  # by URL
        self._users: dict[int, Image] = {}
        self._default: Image | None = None

    def set_layout(self, layout: Layout) -> None:
        """Replace all that was set before."""
        self._layout = layout
        self._pictures = {url: picture for url, picture in self._pictures.items() if url in layout.image_urls}
        self._paint_background()
        self._assign()

    def add(self, url: str, picture: Picture) -> None:
        """An image is there. It may be of a layout to come."""
        self._pictures[url] = picture
        if url == self._layout.background_image:
            self._paint_background()
        self._assign()

    def stands_in_for(self, uid: int) -> bool:
        """Whether there is an image for this participant, who is in the channel."""
        return uid in self._users or self._default is not None

    def _paint_background(self) -> None:
        picture = self._pictures.get(self._layout.background_image or "")
        self._compositor.set_background(colour(self._layout.background_color), picture)

    def _assign(self) -> None:
        layout, there = self._layout, self._pictures
        default = there.get(layout.default_user_background_image or "")
        self._default = Image(default) if default else None
        self._users = {user.uid: Image(there[user.url], user.fit) for user in layout.user_backgrounds if user.url in there}
        self._compositor.set_images(self._users, self._default)


def read_pixels(folder: Path, image: ImageReady) -> Picture:
    """The picture in the recording's `folder`.

    Raises:
        OSError, ValueError: it is not there, or not as large as it should be.
    """
    data = np.fromfile(folder / IMAGES_FOLDER / image.file, np.uint8)
    width, height = image.width, image.height
    if data.size != width * height * 3 // 2:
        raise ValueError("an image of another size than told")
    luma, chroma = data[: width * height], data[width * height :]
    u, v = chroma.reshape(2, height // 2, width // 2)
    return Picture(Planes(luma.reshape(height, width), u, v), matrix="bt601", full_range=True)
