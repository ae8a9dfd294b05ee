"""Small helpers without a concept of their own."""
