"""A broker in memory, for tests; users find it in ``stream_ad.testing``."""
