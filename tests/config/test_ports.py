"""A port is chosen once, kept while it can be had, and never one another process of ours has."""

import socket
from pathlib import Path

from config.ports import FIRST_PORT, LAST_PORT, LOOPBACK, claim_ports, read_ports


def test_ports_are_kept_from_one_start_to_the_next(tmp_path: Path) -> None:
    first = claim_ports(tmp_path, ["web", "redis"])
    assert claim_ports(tmp_path, ["redis", "web", "flower"]).items() >= first.items()
    assert len(set(read_ports(tmp_path).values())) == 3
    assert all(FIRST_PORT <= port <= LAST_PORT for port in read_ports(tmp_path).values())


def test_a_port_somebody_took_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    before = claim_ports(tmp_path, ["web", "redis"])
    with socket.create_server((LOOPBACK, before["web"])):
        after = claim_ports(tmp_path, ["web", "redis"])
    assert after["web"] != before["web"]
    assert after["redis"] == before["redis"]
    assert read_ports(tmp_path) == after


def test_nothing_is_known_before_the_first_claim(tmp_path: Path) -> None:
    assert read_ports(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []
