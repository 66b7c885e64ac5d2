"""Curation: what the people of a shop do with a catalogue."""
