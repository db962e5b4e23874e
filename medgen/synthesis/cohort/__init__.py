"""What a labelled cohort offers: its split, the labels in use, consensus labels, and their bias."""
