"""Choice of a configuration: cross-validation, hyperparameter search and ensembles."""
