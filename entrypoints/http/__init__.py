"""The HTTP API: the edge around Litestar, the controllers, and what they say."""
