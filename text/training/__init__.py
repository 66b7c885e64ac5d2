"""What a training step is made of: queries, pairs, losses, the Lightning module and its trainer."""
