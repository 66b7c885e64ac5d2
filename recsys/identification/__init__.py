"""Identification: which product a photo shows, or that it is not in the catalogue."""
