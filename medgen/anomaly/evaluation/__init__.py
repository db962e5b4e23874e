"""What a detector finds, measured: on implants, by group, by size, and where the calibration may not hold."""
