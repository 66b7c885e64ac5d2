"""Bundles: what training leaves and serving reads, one immutable folder named by its hash."""

from recsys.bundle.reading import Bundle, Contents, write_bundle

__all__ = ["Bundle", "Contents", "write_bundle"]
