"""Offline ranking evaluation: metrics, protocol, report."""
