"""A broker in memory, for tests; public in ``stream_ad.testing``."""
