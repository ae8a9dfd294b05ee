"""Prepares the process that imports this module as a worker does at its start, for the processes forked from it."""

import stream_ad.worker.worker  # noqa: F401
from stream_ad.worker.process_setup import prepare_process

prepare_process()
