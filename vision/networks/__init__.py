"""Networks by name: built, loaded, frozen, factorised."""
