"""The layout of a composite: part of start's `transcodingConfig`, and the whole of updateLayout."""

from collections.abc import Iterator
from typing import Annotated, Final, TypeGuard

from pydantic import AliasChoices, Field

from api.schemas.wire import Given, ImageUrl, Problem, Uid, UidOrEmpty, Wire, unsigned
from recorder.spec import Layout, Region, UserBackground

CUSTOM: Final = 3
MOST_REGIONS: Final = 17
MOST_USERS: Final = 49  # that a recording subscribes to
_HALF_A_MILLIONTH: Final = 5e-7  # six decimals are significant

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class LayoutRegion(Wire):
    uid: UidOrEmpty = ""
    x_axis: Fraction = Field(alias="x_axis")
    y_axis: Fraction = Field(alias="y_axis")
    width: Fraction
    height: Fraction
    alpha: Fraction = 1.0
    render_mode: int = Field(0, alias="render_mode", ge=0, le=1)

    @classmethod
    def rules(cls, given: Given) -> Iterator[Problem]:
        for start, length in (("x_axis", "width"), ("y_axis", "height")):
            a, b = given.get(start), given.get(length)
            if _is_fraction(a) and _is_fraction(b) and a + b > 1 + _HALF_A_MILLIONTH:
                yield length, f"reaches beyond the canvas: {start} + {length} must not be more than 1"

    def to_spec(self) -> Region:
        return Region(
            uid=int(self.uid) if self.uid else None,
            x=self.x_axis,
            y=self.y_axis,
            width=self.width,
            height=self.height,
            alpha=self.alpha,
            fit=self.render_mode == 1,
        )


def _is_fraction(value: object) -> TypeGuard[float]:
    """What is none has an error of its own."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


class UserBackgroundConfig(Wire):
    uid: Uid
    image_url: ImageUrl = Field(alias="image_url", min_length=1)
    render_mode: int = Field(0, alias="render_mode", ge=0, le=1)


class LayoutConfig(Wire):
    """What can be changed while recording."""

    mixed_video_layout: Annotated[int, unsigned(3)] = 0
    max_resolution_uid: UidOrEmpty = ""
    layout_config: list[LayoutRegion] = Field([], max_length=MOST_REGIONS)
    background_color: str = Field(
        "#000000",
        pattern=r"^#[0-9A-Fa-f]{6}$",
        validation_alias=AliasChoices("backgroundColor", "backgroudColor"),  # the second stands in published samples
    )
    background_image: ImageUrl = ""
    default_user_background_image: ImageUrl = ""
    background_config: list[UserBackgroundConfig] = Field([], max_length=MOST_USERS)

    @classmethod
    def rules(cls, given: Given) -> Iterator[Problem]:
        if given.get("mixedVideoLayout") == CUSTOM and not given.get("layoutConfig"):
            yield "layoutConfig", "is required by layout 3"

    def to_layout(self) -> Layout:
        """Regions are for the custom layout only; clients send them with others too."""
        regions = self.layout_config if self.mixed_video_layout == CUSTOM else []
        return Layout(
            number=self.mixed_video_layout,
            max_resolution_uid=int(self.max_resolution_uid) if self.max_resolution_uid else None,
            regions=tuple(region.to_spec() for region in regions),
            background_color=self.background_color,
            background_image=self.background_image or None,
            default_user_background_image=self.default_user_background_image or None,
            user_backgrounds=tuple(
                UserBackground(uid=int(user.uid), url=user.image_url, fit=user.render_mode == 1) for user in self.background_config
            ),
        )
