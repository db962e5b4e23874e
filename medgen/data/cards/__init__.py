"""Data cards: their form, their fields, and how they differ from the cohort that they describe."""
