"""The cohorts of the anomaly benchmark, where they can be looked up without importing what runs it."""

from __future__ import annotations

from collections.abc import Mapping

SIMULATED = "simulated"
# Shipped configuration of that name → whether its scans show brains, which is where the shapes of lesions belong.
COHORTS: Mapping[str, bool] = {"oasis": True, "hippocampus": False, SIMULATED: True}
