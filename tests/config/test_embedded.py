"""The embedded servers keep what they acknowledged through any kill, and touch nothing outside."""

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from config.embedded import (
    ROOT,
    EmbeddedError,
    discard_home,
    is_running,
    service_urls,
    start_services,
    stop_orphan,
)

AS_ROOT = os.geteuid() == 0


def run(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


def data_folder(var: Path, service: str) -> Path:
    return (var / "services").resolve() / service / "data"


def modes_above(path: Path) -> dict[Path, tuple[int, int, int]]:
    found = {parent: parent.stat() for parent in path.parents}
    return {parent: (kept.st_mode, kept.st_uid, kept.st_gid) for parent, kept in found.items()}


def test_acknowledged_rows_survive_kills_and_restarts(var: Path, environ: dict[str, str]) -> None:
    above = modes_above(var)
    with start_services(var, environ=environ) as services:
        urls = services.urls
        run(urls["DATABASE_URL"], "CREATE TABLE kept (n int)")
        run(urls["DATABASE_URL"], "INSERT INTO kept SELECT generate_series(1, 1000)")
        services.kill_postgres()
        services.restart("postgres")
        assert run(urls["DATABASE_URL"], "SELECT count(*) FROM kept") == [(1000,)]

        with redis.Redis.from_url(urls["REDIS_URL"]) as client:
            client.rpush("kept", *range(100))
            time.sleep(1.2)  # it is written to disk once a second
        services.kill_redis()
        services.restart("redis")
        with redis.Redis.from_url(urls["REDIS_URL"]) as client:
            assert client.llen("kept") == 100
    with start_services(var, environ=environ) as services:
        assert services.urls == urls
        assert run(urls["DATABASE_URL"], "SELECT count(*) FROM kept") == [(1000,)]
    assert [is_running(var, name) for name in ("postgres", "redis")] == [False, False]
    assert modes_above(var) == above


def test_servers_are_private_and_unprivileged(var: Path, environ: dict[str, str]) -> None:
    with start_services(var, environ=environ) as services:
        url = services.urls["DATABASE_URL"]
        settings = dict(
            run(
                url,
                "SELECT name, setting FROM pg_settings WHERE name IN ('listen_addresses', 'fsync', 'jit',"
                " 'synchronous_commit', 'data_checksums')",
            )
        )
        assert settings == {
            "listen_addresses": "127.0.0.1",
            "fsync": "on",
            "jit": "off",
            "synchronous_commit": "on",
            "data_checksums": "on",
        }
        assert run(url, "SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user") == [(False, False)]
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            run(url.replace("exitmgr_app:", "exitmgr_app:not-"), "SELECT 1")
        with redis.Redis.from_url(services.urls["REDIS_URL"]) as client:
            kept = {name: client.config_get(name)[name] for name in ("maxmemory-policy", "appendonly", "bind")}
        assert kept == {"maxmemory-policy": "noeviction", "appendonly": "yes", "bind": "127.0.0.1"}
        port = services.urls["REDIS_URL"].rpartition(":")[2]
        with (
            redis.Redis.from_url(f"redis://127.0.0.1:{port}") as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()
        for name in ("postgres", "redis"):
            folder = data_folder(var, name).parent
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            if AS_ROOT:
                assert folder.stat().st_uid != 0
        servers = [p for p in psutil.Process().children() if p.name() in {"postgres", "redis-server"}]
        assert len(servers) == 2
        sockets = [s for server in servers for s in server.net_connections("unix") if s.status == "LISTEN"]
        assert sockets == []
        assert {s.laddr.ip for server in servers for s in server.net_connections("tcp")} == {"127.0.0.1"}
        if AS_ROOT:
            assert 0 not in {uid for server in servers for uid in server.uids()}
    conf = data_folder(var, "redis").with_name("redis.conf")
    assert stat.S_IMODE(conf.stat().st_mode) == 0o600
    assert not data_folder(var, "postgres").with_name("owner-password").exists()


def test_a_second_start_is_refused_and_disturbs_nothing(var: Path, environ: dict[str, str]) -> None:
    with start_services(var, environ=environ) as services:
        urls = services.urls
        with pytest.raises(EmbeddedError, match="already running"):
            start_services(var, environ=environ)
        assert services.urls == urls
        assert run(urls["DATABASE_URL"], "SELECT 1") == [(1,)]
        with redis.Redis.from_url(urls["REDIS_URL"]) as client:
            assert client.ping()


def test_servers_of_a_killed_launcher_are_taken_over(var: Path, environ: dict[str, str]) -> None:
    program = (
        "import sys, time; from pathlib import Path; from config.embedded import start_services\n"
        "services = start_services(Path(sys.argv[1])); print(services.urls['DATABASE_URL'], flush=True)\n"
        "time.sleep(60)"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-c", program, str(var)], cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True
    )
    assert launcher.stdout is not None
    url = launcher.stdout.readline().strip()
    run(url, "CREATE TABLE kept (n int)")
    launcher.kill()
    launcher.communicate()
    assert [is_running(var, name) for name in ("postgres", "redis")] == [True, True]
    with start_services(var, environ=environ) as services:
        assert services.urls["DATABASE_URL"] == url
        assert run(url, "SELECT count(*) FROM kept") == [(0,)]


def test_a_stale_pid_file_does_not_stop_the_start(var: Path, environ: dict[str, str]) -> None:
    start_services(var, environ=environ).stop()
    # the pid of a living process of another program, as after a restart of the machine
    pid_file = data_folder(var, "postgres") / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{data_folder(var, 'postgres')}\n1\n5432\n\n127.0.0.1\n")
    with start_services(var, environ=environ) as services:
        assert run(services.urls["DATABASE_URL"], "SELECT 1") == [(1,)]


def test_an_interrupted_initdb_is_done_again(var: Path, environ: dict[str, str]) -> None:
    start_services(var, environ=environ).stop()
    data = data_folder(var, "postgres")
    data.rename(data.with_name("data.new"))  # as if initdb had been killed before its last step
    (data.with_name("data.new") / "PG_VERSION").unlink()
    with start_services(var, environ=environ) as services:
        assert run(services.urls["DATABASE_URL"], "SELECT 1") == [(1,)]
    assert not data.with_name("data.new").exists()


def test_given_addresses_win_one_by_one(var: Path, environ: dict[str, str]) -> None:
    assert service_urls(var=var, environ=environ) is None
    given = {**environ, "DATABASE_URL": "postgresql://u:p@db.example/x"}
    with start_services(var, environ=given) as services:
        assert services.urls["DATABASE_URL"] == "postgresql://u:p@db.example/x"
        with redis.Redis.from_url(services.urls["REDIS_URL"]) as client:
            assert client.ping()
        assert not is_running(var, "postgres")
    assert not data_folder(var, "postgres").exists()
    both = {**given, "REDIS_URL": "redis://cache.example"}
    with start_services(var, environ=both) as services:
        assert services.urls == {
            "DATABASE_URL": "postgresql://u:p@db.example/x",
            "REDIS_URL": "redis://cache.example",
        }
        assert not is_running(var, "redis")


def test_lost_secrets_are_told_from_a_dead_server(var: Path, environ: dict[str, str]) -> None:
    start_services(var, environ=environ).stop()
    path = var / "secrets.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "POSTGRES_OWNER_PASSWORD": "another"}))
    with pytest.raises(EmbeddedError, match=r"restore var/secrets\.json"):
        start_services(var, environ=environ)
    assert not is_running(var, "postgres")


def test_a_run_beside_the_servers_returns_the_commands_code(var: Path, environ: dict[str, str]) -> None:
    command = [sys.executable, "-m", "config.embedded", "run", "--scratch", "--var", str(var), "--"]
    program = "import os, sys; sys.exit(7 if os.environ['DATABASE_URL'] and os.environ['REDIS_URL'] else 1)"
    done = subprocess.run([*command, sys.executable, "-c", program], cwd=ROOT, env=environ, check=False)
    assert done.returncode == 7
    assert not var.exists()
    missing = subprocess.run(
        [*command, "/no/such/program"], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert (missing.returncode, missing.stderr) == (2, "error: no such command: /no/such/program\n")


@pytest.mark.skipif(not AS_ROOT, reason="only root may start a program as another user")
@pytest.mark.skipif(not Path("/usr/bin/setpriv").exists(), reason="setpriv is not installed")
def test_another_user_is_told_whose_folder_it_is(var: Path, environ: dict[str, str], tmp_path: Path) -> None:
    probe = ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if subprocess.run([*probe, sys.executable, "-c", "pass"], check=False, capture_output=True, cwd="/").returncode:
        pytest.skip("this Python lies where other users cannot reach it")
    done = subprocess.run(
        [*probe, sys.executable, "-m", "config.embedded", "redis", "--var", "/root/exitmgr-not-mine"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "/root/exitmgr-not-mine" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_discarding_leaves_nothing_behind(var: Path, environ: dict[str, str]) -> None:
    start_services(var, environ=environ).stop()
    home = (var / "services").resolve()
    assert home.exists()
    discard_home(var)
    assert not home.exists()
    assert not (var / "services").exists()
    stop_orphan(var, "postgres")  # nothing to stop, and nothing made
    assert not (var / "services").exists()
