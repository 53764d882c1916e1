"""What the Alpaca adapter makes of a server that misbehaves below HTTP, and that it sends each request once."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

import pytest

from orders.brokers.alpaca import AlpacaBroker, connect
from orders.brokers.protocol import OrderRef, OrderSide, SubmitRequest
from orders.errors import AccountRefused, NotSent, OutcomeUnknown, Refused
from tests.simulator.box import free_port

KEY, SECRET = "KEY-OF-THE-TEST", "SECRET-OF-THE-TEST"
REQUEST = SubmitRequest(client_order_id="xm-1", symbol="AAPL", side=OrderSide.BUY, quantity=Decimal(1))


@dataclass
class StubServer:
    """A listener that answers each request with the same bytes and then hangs up; None resets at once."""

    answer: bytes | None
    requests: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                raw = b""
                while b"\r\n\r\n" not in raw:
                    raw += connection.recv(65536)
                self.requests.append(raw)
                if self.answer is None:
                    # closing with the zero linger sends a reset instead of an end
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                else:
                    connection.sendall(self.answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=5)


def http(status: str, body: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body.encode())}", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@pytest.fixture
def adapter(request: pytest.FixtureRequest) -> Iterator[tuple[AlpacaBroker, StubServer]]:
    server = StubServer(request.param)
    broker = connect(base_url=server.url, key=KEY, secret=SECRET)
    yield broker, server
    broker.close()
    server.close()


ROWS = [
    ("reset after the request", None, OutcomeUnknown),
    ("an end without an answer", b"", OutcomeUnknown),
    ("not HTTP", b"SSH-2.0-OpenSSH_9.2\r\n", OutcomeUnknown),
    ("half an answer", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", OutcomeUnknown),
    ("success without a body", http("200 OK", ""), OutcomeUnknown),
    ("success with a web page", http("200 OK", "<html>sign in</html>"), OutcomeUnknown),
    ("success with another kind of JSON", http("200 OK", '"fine"'), OutcomeUnknown),
    ("a redirect is not followed", http("307 Temporary Redirect", "", "Location: /elsewhere"), OutcomeUnknown),
    ("bad gateway", http("502 Bad Gateway", "<html></html>"), OutcomeUnknown),
    ("gateway timeout is not repeated", http("504 Gateway Timeout", ""), OutcomeUnknown),
    ("an order of somebody else", http("200 OK", '{"id": "o", "client_order_id": "other", "symbol": "AAPL", '
     '"side": "buy", "qty": "1", "status": "new", "created_at": "2026-03-16T18:38:01Z"}'), OutcomeUnknown),
    ("beyond the limit is not repeated", http("429 Too Many Requests", "", "Retry-After: 3"), Refused),
    ("refused", http("422 Unprocessable", '{"code": 40010001, "message": "qty is required"}'), Refused),
    ("credentials", http("401 Unauthorized", '{"message": "unauthorized."}'), AccountRefused),
]  # fmt: skip


@pytest.mark.parametrize(
    ("adapter", "expected"),
    [(answer, expected) for _, answer, expected in ROWS],
    ids=[name for name, _, _ in ROWS],
    indirect=["adapter"],
)
def test_a_submit_is_sent_once_and_named_right(
    adapter: tuple[AlpacaBroker, StubServer], expected: type[Exception]
) -> None:
    broker, server = adapter
    with pytest.raises(expected) as caught:
        broker.submit(REQUEST)
    assert type(caught.value) is expected
    assert [raw.split(b" ")[0] for raw in server.requests] == [b"POST"]
    shown = f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"
    assert KEY not in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("adapter", "expected"),
    [
        (http("404 Not Found", "<html>no such page</html>"), OutcomeUnknown),
        (http("404 Not Found", '{"detail": "Not Found"}'), OutcomeUnknown),
        (http("200 OK", "[]"), OutcomeUnknown),
        (None, OutcomeUnknown),
        (http("429 Too Many Requests", ""), NotSent),
    ],
    ids=["a gateway's page", "another program", "a list", "reset", "beyond the limit"],
    indirect=["adapter"],
)
def test_a_look_up_says_none_only_on_alpacas_word(
    adapter: tuple[AlpacaBroker, StubServer], expected: type[Exception]
) -> None:
    broker, server = adapter
    with pytest.raises(expected):
        broker.find_order(OrderRef(client_order_id="xm-1"))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "adapter",
    [http("422 Unprocessable", '{"code": 40010001, "message": "client_order_id must be unique"}')],
    indirect=True,
)
def test_a_taken_id_whose_order_cannot_be_read_is_unknown_not_refused(
    adapter: tuple[AlpacaBroker, StubServer],
) -> None:
    broker, server = adapter
    with pytest.raises(OutcomeUnknown):
        broker.submit(REQUEST)
    assert [raw.split(b" ")[0] for raw in server.requests] == [b"POST", b"GET"]


def test_nobody_listening_is_not_sent() -> None:
    broker = connect(base_url=f"http://127.0.0.1:{free_port()}", key=KEY, secret=SECRET)
    with pytest.raises(NotSent) as caught:
        broker.submit(REQUEST)
    assert SECRET not in f"{caught.value!r} {caught.value.__context__!r}"


def test_a_name_that_does_not_exist_is_not_sent() -> None:
    with pytest.raises(NotSent):
        connect(base_url="http://broker.invalid", key=KEY, secret=SECRET).submit(REQUEST)


def test_a_host_that_does_not_accept_is_left_after_two_seconds_and_was_not_sent() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # the queue of a listener that accepts nothing is soon full; further attempts are left without an answer
        queued = [socket.socket() for _ in range(4)]
        for waiting in queued:
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        broker = connect(base_url=f"http://127.0.0.1:{full.getsockname()[1]}", key=KEY, secret=SECRET)
        began = time.monotonic()
        with pytest.raises(NotSent):
            broker.submit(REQUEST)
        assert 1.5 < time.monotonic() - began < 4
        for waiting in queued:
            waiting.close()
