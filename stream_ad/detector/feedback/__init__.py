"""Feedback by labels: the buffer of waiting events, class importance, trust in labels, the label head, and the classes
that alarms are suspected of.
"""
