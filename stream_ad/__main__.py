"""``python -m stream_ad`` is ``stream-ad``."""

from stream_ad.cli.app import main

main()
