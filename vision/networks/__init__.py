"""Backbone networks by name: building, loading, freezing, LoRA and low-rank layers."""
