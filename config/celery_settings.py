"""Celery's settings, each with its reason. Redis carries doorbells; nothing here may be needed for safety."""

from __future__ import annotations

from datetime import timedelta

from kombu import Exchange, Queue

from config.embedded import default_var, require_url

#: Strict order: a worker empties an earlier queue before it looks at a later one.
LANES = ("emergency", "stop_loss", "take_profit", "entry", "scan", "maintenance")

broker_url = require_url("REDIS_URL", var=default_var())
result_backend = None  # state lives in Postgres; no second write that can block or fail
task_ignore_result = True

# An explicit exchange and routing key: a bare Queue(name) would take those of the default queue.
_exchange = Exchange("exitmgr", type="direct")
task_queues = [Queue(name, _exchange, routing_key=name) for name in LANES]
task_default_queue = "maintenance"  # a forgotten route lands last, never in front of a stop
task_default_exchange = "exitmgr"
task_default_routing_key = "maintenance"
task_create_missing_queues = False  # a typo raises instead of creating a queue that nobody reads
task_routes = {
    "exitmgr.scan": {"queue": "scan"},
    "exitmgr.advance": {"queue": "scan"},
    "exitmgr.sweep": {"queue": "scan"},
    "exitmgr.tidy_cohorts": {"queue": "maintenance"},
    "exitmgr.tell_of_stale_prices": {"queue": "maintenance"},
    "exitmgr.refresh_bars": {"queue": "maintenance"},
    "exitmgr.keep_sessions": {"queue": "maintenance"},
    "exitmgr.ask_about_exits": {"queue": "maintenance"},
    "exitmgr.reconcile": {"queue": "maintenance"},
    "orders.sync": {"queue": "maintenance"},
    "positions.roll_bars": {"queue": "maintenance"},
    # orders.submit has no route: its sender names the lane
}
task_inherit_parent_priority = False
task_default_priority = None  # on Redis a message priority overrules the order of the queues: never set one

task_serializer = "json"
accept_content = ["json"]  # pickle would make write access to Redis equal to code execution
result_accept_content = ["json"]

task_acks_late = False  # late acknowledgement still loses messages on a kill, and adds duplicates; the sweep redelivers
task_reject_on_worker_lost = False
task_acks_on_failure = True
task_acks_on_timeout = True  # a poisonous task never loops at the head of the stop lane
worker_disable_prefetch = True  # fetch only when a process is free: nothing waits behind a slow task it cannot pass
worker_prefetch_multiplier = 1  # the second line, for a transport that does not know the line above
worker_eta_task_limit = 100
task_soft_time_limit = 20
task_time_limit = 30  # a stuck child is killed; its lease runs out and the sweep goes on

task_publish_retry_policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.2}
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # an exit worker never gives up
broker_connection_timeout = 2
broker_transport_options = {
    "queue_order_strategy": "priority",
    "priority_steps": [0],  # one list a queue: a stray priority cannot reorder anything
    "visibility_timeout": 120,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "health_check_interval": 5,
    "global_keyprefix": "exitmgr:",
    "client_name": "exitmgr",
}
worker_cancel_long_running_tasks_on_connection_loss = False  # never kill a child in the middle of a broker call
worker_soft_shutdown_timeout = 10
worker_enable_soft_shutdown_on_idle = False
worker_max_tasks_per_child = 20_000
worker_max_memory_per_child = 300_000  # kilobytes
worker_send_task_events = True
task_send_sent_event = False  # Flower lists tasks from the workers' events; this one would double the cost of ringing
worker_hijack_root_logger = False

beat_scheduler = "config.schedule:SoleScheduler"
beat_max_loop_interval = 1
beat_schedule = {
    "scan": {
        "task": "exitmgr.scan",
        "schedule": timedelta(seconds=1),
        "kwargs": {"scheduled": True},
        "options": {"expires": 1},
    },
    "sweep": {"task": "exitmgr.sweep", "schedule": timedelta(seconds=1), "options": {"expires": 1}},
    "sync": {"task": "orders.sync", "schedule": timedelta(seconds=2), "options": {"expires": 2}},
    "roll bars": {"task": "positions.roll_bars", "schedule": timedelta(seconds=10), "options": {"expires": 10}},
    "refresh bars": {"task": "exitmgr.refresh_bars", "schedule": timedelta(seconds=10), "options": {"expires": 10}},
    "tell of stale prices": {
        "task": "exitmgr.tell_of_stale_prices",
        "schedule": timedelta(seconds=5),
        "options": {"expires": 5},
    },
    "tidy cohorts": {"task": "exitmgr.tidy_cohorts", "schedule": timedelta(seconds=30), "options": {"expires": 30}},
    "ask about exits": {"task": "exitmgr.ask_about_exits", "schedule": timedelta(seconds=1), "options": {"expires": 1}},
    # rings for the accounts that are due, each every 30 s, and sooner while a difference is waited with
    "reconcile": {"task": "exitmgr.reconcile", "schedule": timedelta(seconds=5), "options": {"expires": 5}},
    "keep sessions": {"task": "exitmgr.keep_sessions", "schedule": timedelta(minutes=1), "options": {"expires": 60}},
}
enable_utc = True
timezone = "UTC"
