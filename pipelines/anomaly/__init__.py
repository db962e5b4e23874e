"""The anomaly runs: train and calibrate, score, evaluate."""
