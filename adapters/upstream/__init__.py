"""Talking HTTP to the backends of executors, which may misbehave in any way."""
