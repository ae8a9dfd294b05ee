"""What the program says of itself: metrics, health, logs."""
