"""Ranking: baselines, statistics of events, features, and the scores made of them."""
