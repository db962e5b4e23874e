"""A trained detector as an MLflow model that is served: a scan's path in, its score and the path of its heatmap out."""
