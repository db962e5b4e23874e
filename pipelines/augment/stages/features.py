"""Features of scans that another program has computed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from medgen.runs.context import Results, RunContext
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.fidelity.feature_file import FeatureTable, read_features

from ...stages import Stage
from ..config import AugmentRunConfig


class ReadFeatures(Stage[AugmentRunConfig]):
    """Reads the file of ``fidelity.features`` and checks that it has every real scan, before anything is trained."""

    name = "features"
    needs = (PreparedCohort,)
    makes = (FeatureTable,)

    def wanted(self, config: AugmentRunConfig) -> bool:
        """Where such a file is configured."""
        return config.fidelity.enabled and config.fidelity.features is not None

    def run(self, config: AugmentRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class.

        Raises:
            DataError: If the file cannot be used.
        """
        if config.fidelity.features is None:
            return []
        table = read_features(config.fidelity.features)
        table.of([name for dataset in results[PreparedCohort].data.values() for name in dataset.ids])
        return [table]
