"""Scripts that measure the library, and the results they recorded."""
