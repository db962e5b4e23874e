"""What makes the heatmap: scores and their models, how they were chosen, and what each makes of a place."""
