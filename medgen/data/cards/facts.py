"""What can be measured of a cohort for its card, and how a card differs from its cohort."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medgen.data.cards.fields import CardFields
from medgen.data.cases import Case, Manifest
from medgen.io.dicom.demographics import demographics
from medgen.volume import Grid

Range = tuple[float, float]
# A card rounds; larger differences are others.
_TOLERANCE = 0.01


@dataclass(frozen=True)
class Facts:
    """Measured and stated facts of a cohort.

    Attributes:
        n_cases: Scans.
        n_subjects: Subjects.
        spacing: Median voxel size (mm) along i, j, k.
        spacing_range: Lowest and highest voxel size along i, j, k.
        shape_range: Fewest and most voxels along i, j, k.
        orientation: Directions of the array axes, such as ``RAS``, most frequent first.
        labels: Name per label number.
        modality: As the source states it; empty if it does not.
        sex: Number of subjects by sex, of those of whom it is stated.
        age: Lowest and highest age in years, of those of whom it is stated; None if of nobody.
    """

    n_cases: int
    n_subjects: int
    spacing: tuple[float, float, float]
    spacing_range: tuple[Range, Range, Range]
    shape_range: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    orientation: tuple[str, ...]
    labels: Mapping[int, str]
    modality: str = ""
    sex: Mapping[str, int] = field(default_factory=dict)
    age: Range | None = None

    def fields(self) -> dict[str, Any]:
        """The fields of a card that these facts fill in; what is not known is not there."""
        known: dict[str, Any] = {
            "n_cases": self.n_cases,
            "n_subjects": self.n_subjects,
            "spacing": [round(step, 4) for step in self.spacing],
            "spacing_range": [[round(low, 4), round(high, 4)] for low, high in self.spacing_range],
            "shape_range": [list(pair) for pair in self.shape_range],
            "orientation": list(self.orientation),
            "labels": dict(self.labels),
        }
        if self.modality:
            known["modality"] = self.modality
        if self.sex:
            known["sex"] = dict(self.sex)
        if self.age is not None:
            known["age"] = list(self.age)
        return known


def facts_of(manifest: Manifest, grids: Sequence[Grid]) -> Facts:
    """The facts of a cohort.

    Args:
        manifest: As it was found in its source, which may state modality, sex and age.
        grids: Grid of every scan, in the manifest's order.
    """
    spacings = np.array([grid.spacing for grid in grids])
    shapes = np.array([grid.shape for grid in grids])
    about = [{**_from_header(case), **_stated(case)} for case in manifest]
    owners = {case.subject: facts for case, facts in zip(manifest, about, strict=True)}
    ages = [float(facts["age"]) for facts in owners.values() if _is_age(facts.get("age", ""))]
    modalities = Counter(facts["modality"] for facts in about if "modality" in facts)
    names = manifest.intake.channels
    sexes = Counter(facts["sex"].upper()[:1] for facts in owners.values() if facts.get("sex"))
    i, j, k = (float(step) for step in np.median(spacings, axis=0))
    low_high = [(float(column.min()), float(column.max())) for column in spacings.T]
    few_most = [(int(column.min()), int(column.max())) for column in shapes.T]
    return Facts(
        n_cases=len(manifest),
        n_subjects=len(manifest.subjects),
        spacing=(i, j, k),
        spacing_range=(low_high[0], low_high[1], low_high[2]),
        shape_range=(few_most[0], few_most[1], few_most[2]),
        orientation=tuple(name for name, _ in Counter("".join(grid.axcodes) for grid in grids).most_common()),
        labels=dict(manifest.labels),
        modality=", ".join(names) or ", ".join(name for name, _ in modalities.most_common()),
        sex=dict(sorted(sexes.items())),
        age=(min(ages), max(ages)) if ages else None,
    )


def differences(card: CardFields, facts: Facts) -> list[str]:
    """How a card differs from its cohort, one sentence each; what the cohort does not state is not compared."""
    found = []
    for name, measured in facts.fields().items():
        stated = getattr(card, name)
        if stated is None or (name in ("sex", "orientation") and not stated):
            continue
        if not _same(name, stated, measured):
            found.append(f"{name}: the card says {_text(stated)}, the cohort has {_text(measured)}")
    return found


def _same(name: str, stated: Any, measured: Any) -> bool:
    if name == "modality":
        # People write more than headers do: "MR T1-weighted" is MR.
        return str(measured).lower() in str(stated).lower()
    if name == "labels":
        lower = {int(value): text.lower() for value, text in stated.items()}
        return lower == {value: text.lower() for value, text in measured.items()}
    if name in ("spacing", "spacing_range", "shape_range", "age"):
        return bool(np.allclose(np.array(stated, float), np.array(measured, float), rtol=_TOLERANCE))
    return bool(stated == measured or (isinstance(stated, tuple) and list(stated) == list(measured)))


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        pairs = [_text(item) if isinstance(item, list | tuple) else _number(item) for item in value]
        return (" to " if len(value) == 2 and not isinstance(value[0], list | tuple | str) else ", ").join(pairs)
    return _number(value)


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _from_header(case: Case) -> dict[str, str]:
    return demographics(case.images[0]) if case.images[0].is_dir() else {}


def _stated(case: Case) -> dict[str, str]:
    """Sex, age and modality of a table beside the scans."""
    told = {name.lower(): value for name, value in case.attributes.items()}
    told.setdefault("sex", told.get("gender", ""))
    return {name: told[name] for name in ("sex", "age", "modality") if told.get(name)}


def _is_age(text: str) -> bool:
    try:
        # Ages above 89 are not kept (HIPAA safe harbor, 45 CFR 164.514).
        return 0 <= float(text) < 90
    except ValueError:
        return False
