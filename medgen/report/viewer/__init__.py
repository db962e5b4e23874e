"""A scan with its heatmap or labels in one HTML file that opens offline, drawn by NiiVue."""
