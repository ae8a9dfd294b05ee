"""The detector over a recording, with labels as late as in life."""
