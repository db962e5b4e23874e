"""Sections of the report of walks through the codes of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medgen.models.exploration import FAR, Covariate, Manifold, Regression
from medgen.report.html import Report

LIMITS = """
- What is drawn between and beyond scans is what the model makes of it, and nobody's anatomy.
- A covariate's direction is what goes with it in this cohort, by least squares; other columns are not held constant,
  and nothing says that one causes the other.
- Far is measured in the code alone. A place that is not marked may still be drawn badly.
"""
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Step:
    """A place on a walk, measured.

    Attributes:
        position: Share of the way, standard deviations, or the covariate.
        caption: The same for people.
        distance: Mahalanobis distance of its code from the training scans', in standard deviations.
        p: Share of training scans that lie as far, the place itself counted.
        far: Whether it is marked.
        volumes: Label → ml of the labels that the model draws there; empty where it draws none.
    """

    position: float
    caption: str
    distance: float
    p: float
    far: bool
    volumes: Mapping[int, float]


@dataclass(frozen=True, eq=False)
class Walk:
    """A walk through the codes.

    Attributes:
        name: File name without its ending.
        title: Heading of its section.
        about: Where it goes, in a sentence.
        steps: Every step of the animated picture.
        shown: The steps of the film strip, by number.
        facts: Further numbers.
        strip: The film strip, a PNG.
        film: The animated picture, a GIF.
    """

    name: str
    title: str
    about: str
    steps: tuple[Step, ...]
    shown: tuple[int, ...]
    facts: Mapping[str, Any]
    strip: bytes
    film: bytes

    @property
    def strip_steps(self) -> list[Step]:
        """The steps of the film strip."""
        return [self.steps[number] for number in self.shown]

    def record(self) -> dict[str, Any]:
        """As plain data."""
        steps = [
            {
                "position": step.position,
                "caption": step.caption,
                "distance": step.distance,
                "p": step.p,
                "far": step.far,
                "volumes_ml": {str(number): volume for number, volume in step.volumes.items()},
            }
            for step in self.steps
        ]
        return {"name": self.name, "title": self.title, "about": self.about, **self.facts, "steps": steps}


def interpolation_words(first: str, second: str) -> str:
    """Where an interpolation goes."""
    return f"From {first} to {second}: both ends are the model's reconstructions of these scans."


def principal_words(share: float, start: str, reach: float) -> str:
    """Where a traversal goes."""
    return (
        f"{100 * share:.0f} % of the variance of what the model draws at the training scans' codes. Steps in standard "
        f"deviations, up to {reach:g} either way from {start}; what its code leaves open stays as it is."
    )


def covariate_words(column: Covariate, found: Regression, start: str) -> str:
    """Where a walk along a covariate goes, and whether there is anything to see."""
    said = (
        f"What goes with `{column.name}` over {found.subjects} subjects, added to {start} "
        f"({column.name} {column.words(column.values[start])}): {100 * found.explained:.1f} % of the variance of the "
        f"codes, p = {found.p:.3f} by shuffling the subjects."
    )
    if found.p > SIGNIFICANT:
        return f"{said} **That is no more than chance gives: nothing here says that codes go with {column.name}.**"
    return said


def far_meaning(manifold: Manifold) -> str:
    """What a mark says, for legends."""
    if manifold.limit > FAR:
        return "farther from the middle of the codes than all training scans"
    return f"farther from the middle of the codes than {100 * (1 - FAR):.0f} % of the training scans"


def far_words(steps: Sequence[Step], manifold: Manifold) -> str:
    """How many steps are marked, and what that says."""
    marked = [step.caption for step in steps if step.far]
    if not marked:
        return f"None of the {len(steps)} steps is {far_meaning(manifold)}."
    verb = "is" if len(marked) == 1 else "are"
    return (
        f"{len(marked)} of {len(steps)} steps {verb} {far_meaning(manifold)}: {', '.join(marked)}. "
        "What is drawn there is extrapolated."
    )


def exploration_sections(
    report: Report, walks: Sequence[Walk], manifold: Manifold, label_names: Mapping[int, str]
) -> None:
    """How far training scans lie, then every walk with film strip, animated picture and table."""
    report.section(
        "How to read the pictures",
        "- Radiological convention: the patient's right is on the image's left. One grey scale and the same three "
        "slices for all steps of a walk.\n"
        f"- Orange: {far_meaning(manifold)}, which is a Mahalanobis distance above {manifold.reach:.2f} standard "
        f"deviations. Half of the {len(manifold.distances)} training scans, each left out of what it is compared with, "
        f"lie at up to {np.median(manifold.distances):.2f}: a step along one direction may go far in that direction "
        "before the whole code is unusual.\n"
        "- p: the share of training scans that lie as far, the place itself counted.",
    )
    for walk in walks:
        report.section(walk.title, walk.about)
        report.verdict(far_words(walk.strip_steps, manifold), "neutral")
        report.figure(walk.strip, f"Film strip, `strips/{walk.name}.png`.", f"Film strip: {walk.title}")
        report.animation(walk.film, f"There and back, `animations/{walk.name}.gif`.", f"Animated: {walk.title}")
        numbers = sorted({number for step in walk.steps for number in step.volumes})
        columns = ["step", "distance", "p", "marked", *(f"{label_names.get(n, f'label {n}')} (ml)" for n in numbers)]
        rows = [
            (step.caption, step.distance, step.p, step.far, *(step.volumes[n] for n in numbers))
            for step in walk.strip_steps
        ]
        report.table(columns, rows, "Distance of every step from the middle of the training scans' codes.")
