"""The ledger outlives the process: kill -9 at any moment loses nothing that was acknowledged."""

import http.client
import threading
from decimal import Decimal
from pathlib import Path

from tests.simulator.acts import becomes, hold, place, placed, settled, status_of
from tests.simulator.box import Box, eventually, start_box


def test_everything_survives_a_kill(own_box: Box) -> None:
    box = own_box
    hold(box)
    box.quote("AAPL", "100")
    box.quote("IBM", "50")
    stop = placed(box, side="sell", type="stop", stop_price="95", qty="4", client_order_id="stop")
    trail = placed(box, side="sell", type="trailing_stop", trail_price="3", qty="6", client_order_id="trail")
    entry = placed(
        box,
        symbol="IBM",
        type="limit",
        limit_price="49",
        order_class="bracket",
        take_profit={"limit_price": "55"},
        stop_loss={"stop_price": "45"},
    )
    box.control("POST", "/dedupe", {"mode": "forever"})
    box.control("POST", "/fees", {"per_share": "0.01"})
    before, account = box.control("GET", "/ledger"), box.api("GET", "/v2/account")[1]["id"]

    box.restart()

    after = box.control("GET", "/ledger")
    assert after == before
    assert box.api("GET", "/v2/account")[1]["id"] == account
    assert box.api("GET", "/v2/positions/AAPL")[1]["qty_available"] == "0"
    assert box.api("GET", "/v2/stocks/AAPL/quotes/latest")[1]["quote"]["bp"] == Decimal(100)
    assert place(box, symbol="IBM", qty="1", client_order_id="stop")[0] == 422
    box.quote("AAPL", "94")
    assert becomes(box, stop["id"], "filled")["filled_avg_price"] == "94"
    assert becomes(box, trail["id"], "filled")["filled_avg_price"] == "94"
    box.quote("IBM", "49")
    becomes(box, entry["id"], "filled")
    box.quote("IBM", "44")
    legs = {leg["type"]: leg["status"] for leg in settled(box, entry["id"])["legs"]}
    assert legs == {"limit": "canceled", "stop": "filled"}
    assert box.api("GET", "/v2/positions")[1] == []
    assert {one["fee"] for one in box.control("GET", "/ledger")["executions"]} == {"0.04", "0.06", "0.1"}


def test_every_acknowledged_order_is_there_after_a_kill_under_load(own_box: Box) -> None:
    box = own_box
    box.quote("AAPL", "100")
    acknowledged: list[str] = []

    def send(worker: int) -> None:
        for number in range(10_000):
            name = f"{worker}-{number}"
            try:
                status, _ = place(box, qty="1", client_order_id=name)
            except (OSError, http.client.HTTPException):
                return
            assert status == 200
            acknowledged.append(name)

    threads = [threading.Thread(target=send, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(acknowledged) >= 100)
    box.kill()
    for thread in threads:
        thread.join()

    box.start()
    ledger = eventually(
        lambda: (
            (found := box.control("GET", "/ledger"))
            and all(order["status"] == "filled" for order in found["orders"])
            and found
        )
    )
    assert {order["client_order_id"] for order in ledger["orders"]} >= set(acknowledged)
    by_order: dict[str, Decimal] = {}
    for execution in ledger["executions"]:
        by_order[execution["order_id"]] = by_order.get(execution["order_id"], Decimal(0)) + Decimal(execution["qty"])
    assert by_order == {order["id"]: Decimal(1) for order in ledger["orders"]}
    assert [position["qty"] for position in ledger["positions"]] == [str(len(ledger["orders"]))]
    assert Decimal(ledger["cash"]) == 1_000_000 - 100 * len(ledger["orders"])


def test_what_was_acknowledged_but_not_begun_goes_on_after_a_kill(own_box: Box) -> None:
    box = own_box
    hold(box)
    box.quote("AAPL", "100")
    canceled = placed(box, side="sell", type="stop", stop_price="95", qty="3")
    box.control("POST", "/faults", {"kind": "stuck_pending_cancel"})
    box.api("DELETE", f"/v2/orders/{canceled['id']}")
    assert status_of(box, canceled["id"]) == "pending_cancel"
    box.restart()
    becomes(box, canceled["id"], "canceled")
    assert box.api("GET", "/v2/positions/AAPL")[1]["qty_available"] == "10"


def test_a_closed_session_stays_closed(own_box: Box) -> None:
    own_box.quote("AAPL", "100")
    own_box.control("POST", "/clock", {"is_open": False})
    order = placed(own_box)
    own_box.restart()
    assert own_box.api("GET", "/v2/clock")[1]["is_open"] is False
    assert status_of(own_box, order["id"]) == "accepted"
    own_box.control("POST", "/clock", {"is_open": True})
    becomes(own_box, order["id"], "filled")


def test_sigterm_ends_it_cleanly_with_streams_open(tmp_path: Path) -> None:
    from tests.simulator.listeners import listening

    box = start_box(tmp_path)
    box.quote("AAPL", "100")
    with listening(box):
        assert box.stop() == 0
    box.start()
    assert box.api("GET", "/v2/stocks/AAPL/quotes/latest")[0] == 200
    assert box.stop() == 0
