"""The learning. Knows torch, numpy and river; nothing of brokers, settings files, metrics or clocks.

Import what you need from its modules; this package itself imports nothing heavy.
"""
