"""Recorded and simulated streams, and what is learned from running the detector over them."""
