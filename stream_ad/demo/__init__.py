"""``stream-ad demo``: a plant with faults, a worker that learns from late labels, and a worker that gets none."""

from stream_ad.demo.run import DemoSummary, demo

__all__ = ["DemoSummary", "demo"]
