"""Prepares the process that imports it as a worker does at its start, for those that are forked from it."""

import stream_ad.worker.worker  # noqa: F401
from stream_ad.worker.process_setup import prepare_process

prepare_process()
