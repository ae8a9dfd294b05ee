"""Small helpers that belong to no other package: retries, signals, findings."""
