"""What is derived from readings before the model sees them."""
