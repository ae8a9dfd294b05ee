"""From reconstruction errors to scores and the threshold."""
