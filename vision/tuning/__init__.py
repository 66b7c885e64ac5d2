"""Choosing a recipe: folds, hyperparameter search, ensembles."""
