"""Which backends suit a cohort, and what a run will cost."""
