"""Recorded readings from files."""
