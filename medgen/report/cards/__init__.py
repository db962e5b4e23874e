"""Cards and checklists of a run: what its records say, in the forms that journals, hubs and regulators ask for."""
