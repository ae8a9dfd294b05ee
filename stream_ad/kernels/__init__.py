"""Compiled numerical building blocks that know nothing of the rest."""
