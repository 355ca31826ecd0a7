"""`python -m entrypoints`: the same program as `task-agent`."""

from entrypoints.cli import main

main(prog_name="task-agent")
