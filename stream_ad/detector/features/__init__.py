"""Features: derived inputs, scaling, residuals between readings, and the states of sensors that they show."""
