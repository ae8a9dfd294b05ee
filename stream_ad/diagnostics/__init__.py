"""Looking at what a worker needs and keeps, without changing it."""
