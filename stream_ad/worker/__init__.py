"""The worker process: what may fail, wait and retry. The deterministic core is in ``shard``."""
