"""Training stages and the pipeline that runs them."""
