"""The alarm: evidence, its levels by the promised budget, and what becomes of a lasting change."""
