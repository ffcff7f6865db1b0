"""The only room that knows the training engine."""
