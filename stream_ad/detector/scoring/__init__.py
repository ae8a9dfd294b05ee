"""Scores from reconstruction errors, and the threshold."""
