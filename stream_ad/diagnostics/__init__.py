"""Inspect what a worker needs and keeps: the doctor, snapshots and their restoration."""
