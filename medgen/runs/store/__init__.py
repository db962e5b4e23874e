"""What an MLflow store gets besides numbers: data sets, tables, pictures and registered models, each once."""
