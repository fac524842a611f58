"""Ports for servers of tests."""

import atexit
import socket


def free_port() -> int:
    """
    Give a port of loopback that nobody else gets as long as this process lives.

    :returns: the port; a server may bind it, again and again, as all of them set SO_REUSEADDR.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    atexit.register(holder.close)
    return int(holder.getsockname()[1])
