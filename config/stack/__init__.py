"""Owns the processes of a running installation: declared once, supervised, started and stopped in order."""

from config.stack.lifecycle import AlreadyRunning, Stack
from config.stack.readiness import StackError

__all__ = ["AlreadyRunning", "Stack", "StackError"]
