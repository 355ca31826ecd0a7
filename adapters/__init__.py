"""Stores and executors: everything that touches the world outside, behind the domain's ports."""
