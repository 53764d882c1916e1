"""The trading configuration: what it may say, which layer wins, which version is in force, and how that changes."""
