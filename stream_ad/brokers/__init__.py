"""Brokers: ``open_broker`` and its siblings choose the module by ``broker.kind``; nothing else does."""
