"""Comparing our books with the broker's, and doing what follows."""
