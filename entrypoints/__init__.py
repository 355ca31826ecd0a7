"""What starts things: the command line, the HTTP API, the worker, and what wires them."""
