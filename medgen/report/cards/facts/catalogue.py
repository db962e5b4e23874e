"""All facts that a checklist may ask for, by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from medgen.errors import ConfigError
from medgen.report.cards.facts import data, limits, models, results
from medgen.report.cards.records import Reader, RunRecords

FactFunction = Callable[[Reader], str | None]

_ALL: tuple[FactFunction, ...] = (
    data.cohort,
    data.split,
    data.split_level,
    data.preprocessing,
    data.modality,
    data.labels,
    data.left_out,
    data.covariates,
    data.internal_test,
    data.external_test,
    data.phantom_lesions,
    data.label_reference,
    models.model,
    models.parameters,
    models.software,
    models.initialisation,
    models.training,
    models.selection,
    models.ensemble,
    models.output,
    models.amounts,
    models.weights,
    models.repeat,
    results.voxel_performance,
    results.scan_performance,
    results.sensitivity,
    results.false_findings,
    results.segmentation_performance,
    results.calibration,
    results.verdict,
    results.uncertainty,
    results.measures,
    results.baselines,
    results.controls,
    results.groups,
    results.subgroups,
    results.fidelity,
    limits.missed,
    limits.never_found,
    limits.smallest_lesion,
    limits.gate,
    limits.artefacts,
    limits.leverage,
    limits.suspects,
    limits.audit,
    limits.patient_scans,
    limits.approximations,
    limits.few_seeds,
    limits.few_subjects,
    limits.collapse,
)
FACTS: Mapping[str, FactFunction] = {function.__name__: function for function in _ALL}


@dataclass(frozen=True)
class Fact:
    """One thing that a run knows.

    Attributes:
        name: Its name in :data:`FACTS`.
        text: It, in one or a few sentences.
        sources: The fields that it was made of, such as ``metrics.json: target_fpr``.
    """

    name: str
    text: str
    sources: tuple[str, ...]


def fact_of(records: RunRecords, name: str) -> Fact | None:
    """A fact of a run; None where the run does not know it.

    Raises:
        ConfigError: If there is no fact of that name.
    """
    if name not in FACTS:
        raise ConfigError(f"fact {name!r}: unknown; expected one of {', '.join(FACTS)}")
    read = Reader(records)
    text = FACTS[name](read)
    return None if text is None else Fact(name, text, tuple(read.sources))
