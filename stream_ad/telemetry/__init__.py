"""What the program reports about itself: metrics, health, logs."""
