"""What this process did, in numbers: measured around the store and at the edge."""
