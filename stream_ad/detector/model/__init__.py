"""The autoencoder: its loss, its replay buffer, and its implementations for CPU and GPU."""
