"""Owns the demonstration: real market days through the whole stack, and a verdict that trusts none of it."""
