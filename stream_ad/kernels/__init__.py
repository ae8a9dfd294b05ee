"""Compiled numerical building blocks, which depend on no other package."""
