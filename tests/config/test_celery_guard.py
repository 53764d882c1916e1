"""The Celery app: its guard against a torn-down Redis channel, its routes, and doorbells that fail fast and say so."""

from __future__ import annotations

import base64
import json
import logging
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import ImproperlyConfigured, QueueNotFound
from django.conf import settings
from kombu.transport import redis as kombu_redis

from config import celery_settings
from config.celery import app
from positions import doorbells
from positions.doorbells import ring

OURS = ("alerts.", "exitmgr.", "orders.", "positions.")


def other_app(**conf: Any) -> Celery:
    """Return an app of the same settings with a few changed, for this test alone."""
    made = Celery("other", set_as_current=False)
    made.config_from_object(celery_settings)
    made.conf.update(conf)
    return made


# -- the guard


def test_a_torn_down_channel_raises_what_its_callers_can_handle(monkeypatch):
    with app.connection_for_read() as kept:
        channel = kept.default_channel
        assert channel._connparams()["client_name"] == "exitmgr"
        with monkeypatch.context() as torn:
            torn.setattr(channel.connection, "client", None)  # what `collect` leaves behind when Redis restarts
            with pytest.raises(redis.exceptions.ConnectionError, match="channel is closed"):
                channel._connparams()
        with monkeypatch.context() as torn:
            torn.setattr(channel, "connection", None)
            with pytest.raises(redis.exceptions.ConnectionError, match="channel is closed"):
                channel._connparams()


def test_the_guard_stands_on_every_channel():
    assert kombu_redis.Channel._connparams.__module__ == "config.celery"


def test_kombu_still_needs_the_guard(monkeypatch):
    """When this fails kombu has learned it by itself, and the guard can go."""
    from config.celery import _connparams as without_guard

    with app.connection_for_read() as kept:
        channel = kept.default_channel
        with monkeypatch.context() as torn:
            torn.setattr(channel.connection, "client", None)
            with pytest.raises(AttributeError):
                without_guard(channel)


# -- routes


def test_every_task_of_ours_has_a_queue_or_is_the_one_whose_sender_names_it():
    app.loader.import_default_modules()
    ours = {name for name in app.tasks if name.startswith(OURS)}
    routed = set(celery_settings.task_routes)
    assert {"exitmgr.scan", "exitmgr.advance", "exitmgr.sweep", "orders.submit", "orders.sync"} <= ours
    assert ours - routed == {"orders.submit"}
    assert routed - ours == set()
    assert {route["queue"] for route in celery_settings.task_routes.values()} <= set(celery_settings.LANES)


def test_beat_sends_only_what_exists_and_lets_it_expire_with_its_interval():
    app.loader.import_default_modules()
    for entry in celery_settings.beat_schedule.values():
        assert entry["task"] in app.tasks
        assert entry["options"]["expires"] == entry["schedule"].total_seconds()


def test_each_queue_has_a_routing_key_of_its_own():
    keys = [(queue.name, queue.routing_key, queue.exchange.name) for queue in app.conf.task_queues]
    assert keys == [(lane, lane, "exitmgr") for lane in celery_settings.LANES]


def test_a_queue_nobody_reads_is_refused():
    with pytest.raises((QueueNotFound, ImproperlyConfigured)):
        ring("exitmgr.scan", queue="scann")


# -- doorbells


@pytest.fixture
def own_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Ring into keys of this test alone; they are removed in the end."""
    prefix = f"test-{uuid.uuid4().hex}:"
    options = {**celery_settings.broker_transport_options, "global_keyprefix": prefix}
    monkeypatch.setattr(doorbells, "current_app", other_app(broker_transport_options=options))
    yield prefix
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        for key in client.scan_iter(f"{prefix}*"):
            client.delete(key)


def test_a_doorbell_carries_ids_and_nothing_else(own_keys):
    assert ring("orders.submit", queue="stop_loss", kwargs={"order_ids": [7, 8]}) is True
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        lists = [key for key in client.scan_iter(f"{own_keys}*") if client.type(key) == b"list"]
        assert lists == [f"{own_keys}stop_loss".encode()]
        (message,) = client.lrange(lists[0], 0, -1)
    envelope = json.loads(message)
    assert envelope["content-type"] == "application/json"
    assert envelope["properties"]["priority"] == 0
    args, kwargs, _ = json.loads(base64.b64decode(envelope["body"]))
    assert (args, kwargs, envelope["headers"]["task"]) == ([], {"order_ids": [7, 8]}, "orders.submit")


def test_a_doorbell_into_a_dead_redis_fails_fast_and_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(doorbells, "current_app", other_app(broker_url="redis://127.0.0.1:1/0"))
    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        assert ring("orders.submit", queue="stop_loss", kwargs={"order_ids": [7]}) is False
    assert time.monotonic() - started < 2
    assert "doorbell_lost task=orders.submit queue=stop_loss" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_an_exit_is_written_down_while_redis_is_dead(monkeypatch, caplog):
    from exitmgr.exits import request_exit
    from tests import factories as f

    monkeypatch.setattr(doorbells, "current_app", other_app(broker_url="redis://127.0.0.1:1/0"))
    order = request_exit(position_id=f.hold().pk, now=f.utc_now(), actor="ann")
    assert f.read_again(order).state == "pending"
    assert "doorbell_lost task=orders.submit" in caplog.text
