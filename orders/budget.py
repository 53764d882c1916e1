"""The rate limit of a broker account as one budget of all workers: kept in Redis, on its clock, in one script.

A part is only for stops and another only for exits, and nobody overtakes a more urgent one that waits. Where the
broker tells its window (limit, remaining, reset) the budget is that window; else it is a bucket that is never above
the limit in any minute. Without Redis each process has a small bucket of its own, and stops always pass.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, cast

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from orders.brokers.headers import Heard

log = logging.getLogger(__name__)


class Need(IntEnum):
    """What a request is for, in order of precedence."""

    STOP = 0  # emergencies and stops, and cancels of what stands in their way
    EXIT = 1
    REST = 2  # entries, and questions nobody waits for


#: The parts of a budget that only stops, and only exits, may spend.
STOP_SHARE: Final = 0.30
EXIT_SHARE: Final = 0.15
#: The share of the limit that one process allows itself while it cannot ask what the others spend.
ALONE_SHARE: Final = 0.10
#: A header that names more is no limit.
UNLIMITED: Final = 100_000
#: How long what was denied waits at most before it asks again, in seconds.
ASK_AGAIN: Final = {Need.STOP: 5.0, Need.EXIT: 10.0, Need.REST: 20.0}
_TURNED_AWAY_SECONDS: Final = 5.0
_LONGEST_BLOCK_SECONDS: Final = 60.0
_PATIENCE_SECONDS: Final = 0.25
_AWAY_SECONDS: Final = 5.0
_PREFIX: Final = "exitmgr:budget:"

_STATE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.call('HMGET', KEYS[1], 'limit', 'tokens', 'at', 'left', 'reset', 'blocked', 'want0', 'want1')
local limit = tonumber(kept[1] or ARGV[1])
local left, reset, blocked = tonumber(kept[4] or 0), tonumber(kept[5] or 0), tonumber(kept[6] or 0)
local size, pace, level = limit, 0, 0
if reset > 0 then
  if now >= reset then
    reset = reset + 60000 * math.ceil((now - reset + 1) / 60000)
    left = limit
  end
  level = left
else
  size = math.max(limit / 4, 2)
  pace = limit * 0.75 / 60000
  level = math.min(size, tonumber(kept[2] or size) + (now - tonumber(kept[3] or now)) * pace)
end
"""

#: ARGV: limit, the floors of exits and of the rest as shares, then need, cost and longest wait of each request.
_TAKE: Final = (
    _STATE
    + """
local floors = {0, ARGV[2] * size, ARGV[3] * size}
local wants = {tonumber(kept[7] or 0), tonumber(kept[8] or 0)}
local owed, waits = 0, {}
for i = 4, #ARGV, 3 do
  local need, cost, longest = ARGV[i] + 0, ARGV[i + 1] + 0, ARGV[i + 2] + 0
  local wait = 0
  if blocked > now then
    wait = blocked - now
  elseif need > 0 and wants[1] > now then
    wait = wants[1] - now
  elseif need > 1 and wants[2] > now then
    wait = wants[2] - now
  elseif level < size and level - cost < floors[need + 1] then
    if reset > 0 then
      wait = reset - now
    else
      wait = (floors[need + 1] + cost + owed - level) / pace
      owed = owed + cost
    end
  end
  if wait > 0 then
    wait = math.min(math.max(math.ceil(wait), 10), longest)
    if need < 2 then
      wants[need + 1] = math.max(wants[need + 1], now + wait + 3000)
    end
  else
    level = level - cost
  end
  waits[#waits + 1] = wait
end
redis.call('HSET', KEYS[1], 'want0', wants[1], 'want1', wants[2])
if reset > 0 then
  redis.call('HSET', KEYS[1], 'left', level, 'reset', reset)
else
  redis.call('HSET', KEYS[1], 'tokens', tostring(level), 'at', now)
end
redis.call('PEXPIRE', KEYS[1], 180000)
return waits
"""
)

_GIVE_BACK: Final = """
if redis.call('HEXISTS', KEYS[1], 'reset') == 1 then
  return redis.call('HINCRBY', KEYS[1], 'left', ARGV[1])
end
return redis.call('HINCRBYFLOAT', KEYS[1], 'tokens', ARGV[1])
"""

#: ARGV: limit (0: untold), remaining and milliseconds to the reset (-1: untold), milliseconds nothing may be sent.
_LEARN: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.call('HMGET', KEYS[1], 'left', 'reset', 'blocked')
local limit, remaining, resets_in, block = ARGV[1] + 0, ARGV[2] + 0, ARGV[3] + 0, ARGV[4] + 0
if limit > 0 then
  redis.call('HSET', KEYS[1], 'limit', limit)
end
if limit > 0 and remaining >= 0 and resets_in >= 0 then
  local left, reset, told = tonumber(kept[1] or remaining), tonumber(kept[2] or 0), now + resets_in
  if told > reset + 2000 then
    redis.call('HSET', KEYS[1], 'left', remaining, 'reset', told)
  elseif told >= reset - 2000 then
    redis.call('HSET', KEYS[1], 'left', math.min(left, remaining))
  end
end
if block > 0 then
  redis.call('HSET', KEYS[1], 'blocked', math.max(tonumber(kept[3] or 0), now + block))
end
redis.call('PEXPIRE', KEYS[1], 180000)
return 1
"""

_LOOK: Final = (
    _STATE
    + """
local resets_in = reset > 0 and reset - now or -1
return {tostring(limit), tostring(blocked > now and 0 or level), resets_in, math.max(blocked - now, 0)}
"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What is left of an account's budget; `resets_in` is in seconds where the broker tells its window."""

    limit: int
    left: int
    resets_in: float | None
    blocked_seconds: float


@dataclass(slots=True)
class _Alone:
    """The bucket of one process while Redis is away."""

    level: float
    at: float


@dataclass
class Budget:
    """The budgets of all accounts in one Redis."""

    url: str = field(repr=False)  # holds the password
    prefix: str = _PREFIX
    _alone: dict[int, _Alone] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _away_until: float = 0.0

    def __post_init__(self) -> None:
        self._client = redis.Redis.from_url(
            self.url,
            socket_timeout=_PATIENCE_SECONDS,
            socket_connect_timeout=_PATIENCE_SECONDS,
            retry=Retry(NoBackoff(), 1),  # a connection that was idle for long may be dead
            client_name="exitmgr-budget",
        )
        self._take = self._client.register_script(_TAKE)
        self._give_back = self._client.register_script(_GIVE_BACK)
        self._learn = self._client.register_script(_LEARN)
        self._look = self._client.register_script(_LOOK)

    @property
    def is_away(self) -> bool:
        """Return whether Redis was not there when it was last asked."""
        return self._away_until > 0

    def take(self, *, account_id: int, limit: int, needs: Sequence[tuple[Need, int]]) -> list[float]:
        """Take for requests given as (need, cost), the most urgent first; return 0 for what may go, else its wait.

        Waits are in seconds. `limit` is in requests a minute and counts until the broker names its own.
        """
        if not needs:
            return []
        arguments: list[float] = [limit, STOP_SHARE, STOP_SHARE + EXIT_SHARE]
        for need, cost in needs:
            arguments += [int(need), cost, int(ASK_AGAIN[need] * 1000)]
        waits = self._run(self._take, account_id, arguments)
        if waits is None:
            return self._take_alone(account_id, limit, needs)
        return [wait / 1000 for wait in cast("list[int]", waits)]

    def give_back(self, *, account_id: int, cost: int) -> None:
        """Return what was taken and not spent."""
        if cost > 0:
            self._run(self._give_back, account_id, [cost])

    def learn(self, *, account_id: int, heard: Heard) -> None:
        """Correct a budget by what the broker says is left; being turned away empties it until the reset."""
        block = 0.0
        if heard.turned_away:
            told = _TURNED_AWAY_SECONDS if heard.reset_seconds is None else heard.reset_seconds
            block = min(max(told, 0.1), _LONGEST_BLOCK_SECONDS)
        window = heard.remaining is not None and heard.reset_seconds is not None
        self._run(
            self._learn,
            account_id,
            [
                heard.limit or 0,
                heard.remaining if window and heard.remaining is not None else -1,
                int((heard.reset_seconds or 0) * 1000) if window else -1,
                int(block * 1000),
            ],
        )

    def level(self, *, account_id: int, limit: int) -> Level | None:
        """Return what is left, or None while Redis is away."""
        told = self._run(self._look, account_id, [limit])
        if told is None:
            return None
        of, left, resets_in, blocked = cast("tuple[bytes, bytes, int, int]", told)
        return Level(
            limit=int(float(of)),
            left=int(float(left)),
            resets_in=None if resets_in < 0 else resets_in / 1000,
            blocked_seconds=blocked / 1000,
        )

    def _run(self, script: Any, account_id: int, arguments: Sequence[float]) -> object | None:
        """Run one script, or return None where Redis is away; it is left alone for a while then."""
        if time.monotonic() < self._away_until:
            return None
        try:
            told: object = script(keys=[f"{self.prefix}{account_id}"], args=list(arguments))
        except (redis.RedisError, OSError) as error:
            if not self.is_away:
                log.warning("budget_store_away error=%s", error)
            self._away_until = time.monotonic() + _AWAY_SECONDS
            return None
        self._away_until = 0.0
        return told

    def _take_alone(self, account_id: int, limit: int, needs: Sequence[tuple[Need, int]]) -> list[float]:
        size = max(limit * ALONE_SHARE, 2.0)
        pace = limit * ALONE_SHARE / 60
        floors = {Need.STOP: 0.0, Need.EXIT: STOP_SHARE * size, Need.REST: (STOP_SHARE + EXIT_SHARE) * size}
        now = time.monotonic()
        waits = []
        with self._lock:
            kept = self._alone.setdefault(account_id, _Alone(level=size, at=now))
            kept.level, kept.at = min(size, kept.level + (now - kept.at) * pace), now
            for need, cost in needs:
                missing = floors[need] + cost - kept.level
                if need is Need.STOP or kept.level >= size or missing <= 0:
                    kept.level = max(kept.level - cost, -size)
                    waits.append(0.0)
                else:
                    waits.append(min(missing / pace, ASK_AGAIN[need]))
        return waits


@lru_cache(maxsize=1)
def shared_budget() -> Budget:
    """Return the budgets this process shares with all others."""
    return Budget(url=settings.REDIS_URL)
