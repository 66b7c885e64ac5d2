"""Tables: schemas, loading, validation, splits and sources."""
