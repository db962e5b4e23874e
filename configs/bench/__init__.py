"""Configurations shipped with medgen; one YAML file is a whole run."""
