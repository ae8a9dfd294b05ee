"""``stream-ad demo``: a plant with faults, a worker that learns from late verdicts, and one that gets none."""

from stream_ad.demo.run import DemoSummary, demo

__all__ = ["DemoSummary", "demo"]
