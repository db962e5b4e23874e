"""Draws and measures what a model makes of every route."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from medgen.data.cases import Manifest
from medgen.models.artifact import TrainedModel
from medgen.models.exploration import label_volumes
from medgen.report.exploration import Step, Walk, exploration_sections, far_meaning
from medgen.report.figures.strips import Frame, animation, film_strip
from medgen.report.html import Report, png
from medgen.runs.context import Output, Results, RunContext
from medgen.system.files import write_bytes, write_json
from medgen.volume import Grid, Volume

from ..stages import Stage
from .config import ExploreConfig
from .locate import Located
from .routes import FINER, Route, routes


class Walks(tuple[Walk, ...]):
    """All walks."""


class Explore(Stage[ExploreConfig]):
    """Walks, and draws what the model draws on the way."""

    name = "walk"
    needs = (TrainedModel, Manifest, Located)
    makes = (Walks,)

    def run(self, config: ExploreConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        found, folder = results[Located], run.folder.out
        grid, labels = results[TrainedModel].preprocess.canonical(), results[Manifest].labels
        walks: list[Walk] = []
        with run.bars() as tick:
            for route in routes(config, found, run.seed):
                walk = _walk(route, config, found, grid, labels)
                write_bytes(folder / "strips" / f"{walk.name}.png", walk.strip)
                write_bytes(folder / "animations" / f"{walk.name}.gif", walk.film)
                walks.append(walk)
                tick("walking", len(walks), 1 + config.components + len(config.along))
        about = {"model_sha256": results[TrainedModel].sha256, "cohort": results[Manifest].name, "same": found.same}
        distances = dict(zip(np.array(found.dataset.ids)[found.training], found.manifold.distances, strict=True))
        spread = {"training_distances": distances, "far_at_p": found.manifold.limit}
        write_json(folder / "exploration.json", {**about, **spread, "walks": [walk.record() for walk in walks]})
        return [Walks(walks)]

    def outputs(self) -> tuple[Output, ...]:
        """Pictures, and all numbers."""
        return (
            Output("strips/", "a film strip of every walk, PNG", tracked=True),
            Output("animations/", "an animated picture of every walk, GIF", tracked=True),
            Output(
                "exploration.json",
                "every step of every walk: position, distance from the training scans' codes, p, volumes of labels",
                tracked=True,
            ),
        )

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """How many steps are marked, and how codes go with covariates."""
        found = results[Located]
        walks = {
            walk.name: {**walk.facts, "steps": len(walk.strip_steps), "far": sum(step.far for step in walk.strip_steps)}
            for walk in results[Walks]
        }
        return {
            "model_sha256": results[TrainedModel].sha256,
            "training_scans": int(found.training.sum()),
            "far_at_p": found.manifold.limit,
            "walks": walks,
        }

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """Every walk."""
        exploration_sections(report, results[Walks], results[Located].manifold, results[Manifest].labels)

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """A line for each walk, and what else could be followed."""
        lines = []
        for walk in results[Walks]:
            far = sum(step.far for step in walk.strip_steps)
            p = f", p = {walk.facts['p']:.3f}" if "p" in walk.facts else ""
            lines.append(f"{walk.title}: {far} of {len(walk.strip_steps)} steps are far from the training scans{p}")
        used = {column.name for column in results[Located].columns}
        further = sorted({name for case in results[Manifest] for name in case.attributes} - used)
        return [*lines, *([f"further columns for --along: {', '.join(further)}"] if further else [])]


def _walk(route: Route, config: ExploreConfig, found: Located, grid: Grid, label_names: Mapping[int, str]) -> Walk:
    """Draw and measure every step of a route."""
    numbers = range(1, getattr(found.model.settings, "n_labels", 0) + 1)
    steps: list[Step] = []
    frames: list[Frame] = []
    for position, caption, place in route.stops:
        drawn = found.model.draw_at(place)
        distance = float(found.manifold.distance(place.code.double().cpu().numpy())[0])
        far, p = found.manifold.is_far(distance), found.manifold.p_value(distance)
        volumes = {} if drawn.labels is None else label_volumes(drawn.labels, numbers, grid.voxel_volume)
        steps.append(Step(position, caption, distance, p, far, volumes))
        frames.append(Frame(_volume(drawn.image, grid), _volume(drawn.labels, grid), caption, far))
    shown = tuple(range(0, len(steps), FINER))
    pictures = [frames[number] for number in shown]
    strip = film_strip(pictures, title=route.title, label_names=label_names, far=far_meaning(found.manifold))
    return Walk(route.name, route.title, route.about, tuple(steps), shown, route.facts, png(strip), animation(frames))


def _volume(data: Tensor | None, grid: Grid) -> Volume | None:
    return None if data is None else Volume(data[0].cpu().numpy(), grid)
