"""The learning. Knows torch, NumPy and numba; nothing of brokers, settings files, metrics or clocks.

Import what you need from its modules; this package itself imports nothing heavy.
"""
