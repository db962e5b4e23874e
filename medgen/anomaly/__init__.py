"""Anomaly scoring: scores, normative z, fusion, conformal calibration, findings; see ``docs/guides/anomaly.md``."""
