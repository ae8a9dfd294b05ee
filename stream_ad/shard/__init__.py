"""The deterministic core: records in, results out; no clock, no I/O."""
