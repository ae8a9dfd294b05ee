"""Streaming anomaly detection that learns from delayed verdicts."""

__version__ = "0.1.0"
