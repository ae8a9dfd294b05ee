"""A simulated plant, its annotator, and the replay of recordings into topics."""
