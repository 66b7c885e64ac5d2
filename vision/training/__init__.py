"""What a training step is made of, under Lightning."""
