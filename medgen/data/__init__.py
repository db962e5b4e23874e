"""Cohorts: cases and manifests, what their files hold, whether they are sound, and the cards that describe them."""
