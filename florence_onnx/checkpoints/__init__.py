"""What a checkpoint is, without torch."""
