"""Feedback by labels: the buffer of waiting events, class importance, trust in labels, and the label head."""
