"""What labels do: the buffer of events that wait, class importance, trust, and the label head."""
