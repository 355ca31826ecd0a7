"""The port of a process: taken before anything else, so that a second process on it ends early."""

import ipaddress
import socket
from typing import Final

from settings.conversion import SettingsError, Sources, source_of
from settings.schema import ServerSettings, Settings

_BACKLOG: Final = 2048


class PortUnavailable(Exception):
    """Nobody can listen there."""


def listen(settings: Settings, sources: Sources) -> socket.socket:
    """A socket for the API, which listens where the settings say.

    Raises `SettingsError` for an address that is not loopback, unless there are API keys or
    `security.allow_anonymous`, and `PortUnavailable`.
    """
    server, security = settings.server, settings.security
    family, address = _resolve(server, server.port, sources)
    is_open = not security.api_keys and not security.allow_anonymous
    if is_open and not ipaddress.ip_address(address[0]).is_loopback:
        raise SettingsError(
            f"{_host(server, sources)}, which others can reach; allowed: a loopback address,"
            " security.api_keys (`task-agent key NAME` makes one),"
            " or security.allow_anonymous: true"
        )
    return _bound(family, address)


def listen_for_probes(settings: Settings, sources: Sources) -> socket.socket | None:
    """A socket for the probes of a worker, on `server.host`; None where no `worker.port` is set.

    Raises `SettingsError` and `PortUnavailable`. Any address will do: what is told there is nothing
    but numbers.
    """
    if settings.worker.port is None:
        return None
    return _bound(*_resolve(settings.server, settings.worker.port, sources))


def url_of(server: ServerSettings, listener: socket.socket) -> str:
    """Where clients find what listens there."""
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"http://{host}:{listener.getsockname()[1]}"


def _resolve(server: ServerSettings, port: int, sources: Sources) -> tuple[int, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(server.host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        message = (
            f"{_host(server, sources)}, which is not known; allowed: an address of this machine"
        )
        raise SettingsError(message) from error
    family, _, _, _, address = found[0]
    return family, (str(address[0]), port)


def _bound(family: int, address: tuple[str, int]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = f"cannot listen on {address[0]} port {address[1]}: {error.strerror}"
        raise PortUnavailable(reason) from error
    return listener


def _host(server: ServerSettings, sources: Sources) -> str:
    return f"server.host (from {source_of('server.host', sources)}) is {server.host!r}"
