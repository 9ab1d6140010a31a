"""HTTP server on 127.0.0.1 for the pages; it answers GET and HEAD requests only.

Requests from other sites are rejected by their Host and Sec-Fetch-Site headers.
"""

import socket
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from typing_extensions import override

from bench.errors import UserError
from bench.view.pages import ODD_BYTES, Pages, Response

ADDRESS = "127.0.0.1"
PORT, TRIES = 8421, 20  # default: the first free port from here on
MAX_IDLE = 60.0  # seconds until an idle connection is closed
MAX_CONNECTIONS = 64  # a browser opens six
MAX_QUERY_FIELDS = 30
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
        " img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Server(ThreadingHTTPServer):
    """Serves the pages on a port, by default the first free one; UserError if it is not free."""

    daemon_threads = True
    request_queue_size = 128  # with a small queue, new connections may wait for seconds

    def __init__(self, pages: Pages, port: int | None = None) -> None:
        self.pages = pages
        self._connections: OrderedDict[socket.socket, None] = OrderedDict()  # longest idle first
        self._changes = threading.Lock()
        self._max_connections = MAX_CONNECTIONS
        with suppress(ImportError):  # not on Windows
            import resource

            files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            if files != resource.RLIM_INFINITY:
                self._max_connections = max(2, min(self._max_connections, files // 4))
        for number in range(PORT, PORT + TRIES) if port is None else [port]:
            try:
                super().__init__((ADDRESS, number), Handler)
            except OSError as error:
                failure = error
            else:
                return
        which = f"The ports {PORT} to {PORT + TRIES - 1} are" if port is None else f"Port {port} is"
        raise UserError(
            f"{which} not free ({failure.strerror}). Name another one with --port, or 0 for any."
        )

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection; if there are too many, close the one that was idle longest."""
        with self._changes:
            self._connections[request] = None
            idle = None
            if len(self._connections) > self._max_connections:
                idle, _ = self._connections.popitem(last=False)
        if idle is not None:
            with suppress(OSError):  # it was closed meanwhile
                idle.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def note_activity(self, request: Any) -> None:
        """Mark a connection as active, so that idle ones are closed before it."""
        with self._changes:
            if request in self._connections:
                self._connections.move_to_end(request)

    @override
    def shutdown_request(self, request: Any) -> None:
        with self._changes:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Report an error, unless the browser closed the connection."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as they came

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """URL of the pages."""
        return f"http://{ADDRESS}:{self.port}/"


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "bench", ""
    timeout = MAX_IDLE
    wbufsize = -1  # buffered, because the second packet of a response would wait for 40 ms

    def do_GET(self) -> None:
        """Answer with a page."""
        self.server.note_activity(self.request)
        hosts = [f"{name}:{self.server.port}" for name in (ADDRESS, "localhost")]
        if self.headers.get("Host", "").lower() not in hosts:
            # DNS rebinding: a site whose name resolves to 127.0.0.1 must not read these pages.
            self._send(Response(b"This server answers to 127.0.0.1 alone.\n", "text/plain", 421))
            return
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            self._send(Response(b"Another site asked for this page.\n", "text/plain", 403))
            return
        self._send(self._answer())

    do_HEAD = do_GET  # noqa: N815  # a name of http.server; `_send` leaves the content out

    def _answer(self) -> Response:
        pages = self.server.pages
        try:
            url = urlsplit(self.path)
            query = dict(parse_qsl(url.query, max_num_fields=MAX_QUERY_FIELDS, errors=ODD_BYTES))
        except ValueError:  # such as too many fields
            return pages.problem(400, "This is not an address of these pages.")
        try:
            return pages.answer(url.path, query)
        except Exception as error:  # a damaged run, or a bug; other pages still work
            return pages.problem(500, f"Unexpected {type(error).__name__}: {error}")

    def _send(self, response: Response) -> None:
        code, content = response.code, response.content
        if code == 200 and self.headers.get("If-None-Match") == response.tag:
            code, content = 304, b""
        self.send_response(code)
        own = {"ETag": response.tag, "Content-Type": response.kind, "Content-Length": len(content)}
        for name, value in {**HEADERS, **response.headers, **own}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @override
    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing: live pages send a request every two seconds."""


def serve(server: Server, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C; `ready` is called with the URL of the pages."""
    from bench import interrupts

    interrupts.begin_work()
    ready(server.url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        if interrupts.received() is None:  # raised by other code
            raise
        interrupts.end_work()
    finally:
        server.server_close()
