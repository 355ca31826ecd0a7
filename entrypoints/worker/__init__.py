"""The worker: claims tasks, runs them, keeps the store in order."""
