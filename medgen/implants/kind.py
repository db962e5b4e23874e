"""What a kind of implant is: a function from a site in a healthy image to the changed image, and what it asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from medgen.implants.regions import Placer, one_region
from medgen.implants.site import Image, Site

Change = Callable[[Site], Image]
# The place of kinds that ask for none: behind all that do, by name.
_LAST = 1000


@dataclass(frozen=True)
class Kind:
    """One kind of implant; calling it with a :class:`~medgen.implants.site.Site` gives the changed image (i, j, k).

    Attributes:
        name: Name in configurations, tables and file names.
        change: What it does, with a docstring that says what the contrast is and where the kind was published.
        order: Place among the kinds: in lists, in the turns that scans take, and therefore in every draw.
        foreign: Whether it mixes in another scan.
        shape: Whether it takes its form from a real lesion mask.
        validation: Whether channels are chosen on it; then it is no test by default.
        region: Draws where and in which form it is.
    """

    name: str
    change: Change
    order: int
    foreign: bool
    shape: bool
    validation: bool
    region: Placer

    def __call__(self, site: Site) -> Image:
        """The whole image, float32, changed where the site's region has weight and nowhere else."""
        return self.change(site)


def implant_kind(
    *,
    order: int = _LAST,
    foreign: bool = False,
    shape: bool = False,
    validation: bool = False,
    region: Placer = one_region,
) -> Callable[[Change], Kind]:
    """Make a function a kind of implant that bears its name; for the arguments see :class:`Kind`."""
    return lambda change: Kind(change.__name__, change, order, foreign, shape, validation, region)
