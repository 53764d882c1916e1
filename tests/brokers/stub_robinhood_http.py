"""The side of the Robinhood stub that faces the network: requests, answers, and the faults that a test ordered."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Refusal(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, body: Any, **headers: str) -> None:
        super().__init__(f"{status} {body}")
        self.status, self.body, self.headers = status, body, headers


def serve(books: Any) -> Server:
    """Answer for these books on a port of the loopback interface, on threads of its own, until it is shut down."""
    server = Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"books": books}))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hung up: the faults make them."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    books: Any

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by the library
        """Say nothing of each request."""

    def do_GET(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}"))

    def _serve(self, body: dict[str, Any]) -> None:
        books, target = self.books, urlsplit(self.path)
        books.requests.append((self.command, target.path))
        is_order = self.command == "POST" and target.path == "/orders/"
        if is_order:
            books.bodies.append(body)
        kinds = {"lose_request", "lose_answer", "server_error", "server_error_after_accept", "rate_limit", "silence"}
        # a fault of one order breaks only its placing, else it breaks whatever comes next
        fault = books.take_fault(kinds=kinds, ref=str(body.get("ref_id")) if is_order else "")
        if fault == "silence":
            time.sleep(books.silence_seconds)
        if fault == "lose_request":
            return self._hang_up()
        try:
            self._refuse_first(fault)
            status, answer = self._carry_out(target.path, target.query, body)
        except Refusal as refusal:
            return self._reply(refusal.status, refusal.body, refusal.headers)
        if fault == "lose_answer":
            return self._hang_up()
        if fault == "server_error_after_accept":
            return self._reply(504, "<html>gateway timeout</html>", {})
        return self._reply(status, answer, {})

    def _refuse_first(self, fault: str) -> None:
        if fault == "server_error":
            raise Refusal(503, "<html>unavailable</html>")
        if fault == "rate_limit":
            raise Refusal(429, {"detail": "Request was throttled. Expected available in 2 seconds."})
        if self.headers.get("Authorization") != f"Bearer {self.books.token}":
            raise Refusal(401, {"detail": "Incorrect authentication credentials."})

    def _carry_out(self, path: str, query: str, body: dict[str, Any]) -> tuple[int, Any]:
        books = self.books
        if self.command == "GET":
            return 200, books.answer(path, {name: values[0] for name, values in parse_qs(query).items()})
        if path == "/orders/":
            return 201, books.show(books.place(body))
        order = books.orders.get(path.removeprefix("/orders/").removesuffix("/cancel/"))
        if order is None:
            raise Refusal(404, {"detail": "Not found."})
        books.cancel(order)
        return 200, {}

    def _reply(self, status: int, body: Any, headers: dict[str, str]) -> None:
        raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
