"""The parts of a cohort brought to one grid, which a template of some of them may shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from medgen.data.cases import Manifest
from medgen.preprocessing.dataset import Dataset, Failure, prepare_dataset
from medgen.preprocessing.prepared import Template
from medgen.preprocessing.recipe import Preprocess
from medgen.preprocessing.template import build_template
from medgen.transforms.kept_registrations import Register


@dataclass(frozen=True, eq=False)
class PreparedParts:
    """The parts of a cohort on the model grid.

    Attributes:
        template: What scans were registered to; None where the recipe registers none.
        data: The prepared scans of every part that has any, by its name.
        failures: The scans that could not be prepared, of all parts.
    """

    template: Template | None
    data: Mapping[str, Dataset]
    failures: tuple[Failure, ...]


def prepare_parts(
    parts: Mapping[str, Manifest],
    shaping: Manifest,
    recipe: Preprocess,
    *,
    workers: int,
    register: Register,
    tick: Callable[[str, int, int], None],
) -> PreparedParts:
    """Build the template where the recipe registers scans, then prepare every part that has scans.

    Args:
        parts: Cases of every part, by its name.
        shaping: The cases that the template is made from: training scans only, since held-out ones must not shape what
            they are judged by.
        recipe: How scans are brought to the grid.
        workers: Threads.
        register: What registers scans; :class:`medgen.transforms.kept_registrations.KeptRegistrations` remembers.
        tick: Called with (what is done, scans done, scans in all).

    Raises:
        DataError: If no scan of a part could be prepared, or too few scans register to build a template.
    """
    template = template_of(shaping, recipe, workers=workers, register=register, tick=tick)
    data: dict[str, Dataset] = {}
    failures: list[Failure] = []
    for name, part in parts.items():
        if len(part):
            shown = partial(tick, f"preparing {name} scans")
            data[name], failed = prepare_dataset(part, recipe, template, workers, progress=shown, register=register)
            failures += failed
    return PreparedParts(template, data, tuple(failures))


def template_of(
    shaping: Manifest,
    recipe: Preprocess,
    *,
    workers: int,
    register: Register,
    tick: Callable[[str, int, int], None],
) -> Template | None:
    """The template of the scans that shape it, all of which are held in memory for it; None where there is none.

    Raises:
        DataError: If too few scans register to build one.
    """
    if recipe.align != "affine":
        return None
    scans = [case.read_image() for case in shaping]
    shown = partial(tick, "building the template")
    return build_template(scans, recipe, workers=workers, progress=shown, register=register)
