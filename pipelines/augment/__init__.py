"""The augment runs: generate, filter, audit, measure, export."""
