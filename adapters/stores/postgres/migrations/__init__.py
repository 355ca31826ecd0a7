"""Numbered migrations, applied in order under a lock, each in a transaction of its own."""
