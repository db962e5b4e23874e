"""Made-up rows of a study, with known differences between the arms."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medgen.synthesis.value.tables import METRICS, Row


def made_up(
    gains: Mapping[int, Mapping[str, float]],
    *,
    rng: np.random.Generator,
    seeds: int = 5,
    test: int = 30,
    validation: int = 0,
    noise: float = 0.004,
    per_subject: float = 0.003,
    per_seed: float = 0.001,
) -> list[Row]:
    """Rows of number of subjects → arm → Dice above 0.8.

    Subjects differ (shared by all arms), each arm suits each subject and each seed a little better or worse, and every
    training has its noise.
    """
    rows: list[Row] = []
    for part, subjects in (("validation", validation), ("test", test)):
        base = 0.8 + 0.05 * rng.standard_normal(subjects)
        for number, arms in gains.items():
            for arm, gain in arms.items():
                table = base + gain + per_subject * rng.standard_normal(subjects)
                table = (
                    table + per_seed * rng.standard_normal((seeds, 1)) + noise * rng.standard_normal((seeds, subjects))
                )
                for (seed, subject), dice in np.ndenumerate(table):
                    name = f"{part}-{subject:03d}"
                    where = {"arm": arm, "subjects": number, "seed": seed, "part": part, "case": name, "subject": name}
                    rows.append({**where, "label": 1, **dict(zip(METRICS, (float(dice), 1.0, 0.9), strict=True))})
    return rows
