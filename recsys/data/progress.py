"""How long work reports its progress."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Function called with a word for the work, the steps that are done, and the number of steps."""
