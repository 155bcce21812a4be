"""A TLS server that keeps what it is told: nothing, as long as its clients look at its certificate."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_QUIET_SECONDS: Final = 0.5  # then a client waits for its answer


class Trap:
    def __init__(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        self.port: int = listener.getsockname()[1]
        self.heard = b""
        self.connections = 0
        self._listener = listener
        self._context = context

    def run(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:  # the test is over
                return
            self.connections += 1
            with plain, contextlib.suppress(OSError):  # ssl.SSLError is one
                plain.settimeout(10)
                with self._context.wrap_socket(plain, server_side=True) as sock:
                    self._listen(sock)

    def _listen(self, sock: ssl.SSLSocket) -> None:
        sock.settimeout(_QUIET_SECONDS)
        said = b""
        with contextlib.suppress(TimeoutError):
            while data := sock.recv(1 << 16):
                said += data
                self.heard += data
                if said.endswith(b"\r\n\r\n") and b"100-continue" in said:
                    sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@contextlib.contextmanager
def trap(certificate: Path, key: Path) -> Iterator[Trap]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        it = Trap(listener, context)
        thread = threading.Thread(target=it.run)
        thread.start()
        try:
            yield it
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
