"""Contract suites and fakes, shipped for the authors of stores and executors."""
