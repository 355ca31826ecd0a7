"""What concerns all tests: which folders hold none of ours."""

collect_ignore = ["plugin_example"]  # a package of its own; `e2e/test_plugins.py` runs its tests
