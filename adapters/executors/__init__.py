"""Executors: what runs an attempt."""
