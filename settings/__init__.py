"""Settings: their schema, their files, and the loader that turns files and environment into one."""
