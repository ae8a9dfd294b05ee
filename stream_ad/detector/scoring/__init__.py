"""Scores from reconstruction errors, the threshold, and drift of the scores."""
