"""Custom: regions the customer drew, for named users or for whoever comes next."""

from collections.abc import Sequence

from mixer.fit import Size
from mixer.layouts import MAX_PLACES, Options, Placement

NUMBER = 3


def place(people: Sequence[int], canvas: Size, options: Options) -> list[Placement]:
    regions = options.regions[:MAX_PLACES]
    named = {region.uid for region in regions}
    others = iter([uid for uid in people[:MAX_PLACES] if uid not in named])
    placements = []
    for region in regions:
        uid = next(others, None) if region.uid is None else region.uid
        if uid is not None:
            placements.append(Placement(uid, region.rect, region.alpha, region.fit, present=uid in people))
    return placements
