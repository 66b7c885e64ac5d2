"""Scripts that measure, and the numbers they measured."""
