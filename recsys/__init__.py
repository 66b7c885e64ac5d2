"""Train, bundle, evaluate and query multimodal product recommenders."""
