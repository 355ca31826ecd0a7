"""What a task is and what may become of it: pure rules, no I/O, no clock, no randomness."""
