"""The detector: features, model, scores and feedback. It knows NumPy, numba and torch, but no broker, metric or clock.

Import what you need from its modules; this package itself imports nothing heavy.
"""
