"""supervisord reads back what was declared, and no secret stands on a command line."""

import os
import shlex
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from config.secrets import Secrets, load_secrets
from config.stack.processes import Phase, Process, declare_processes
from config.stack.supervision import (
    LONGEST_SOCKET_PATH,
    SupervisionError,
    make_socket_folder,
    remove_socket_folder,
    render_configuration,
    socket_path,
)

PORTS = {"postgres": 1, "redis": 2, "simulator": 3, "web": 4, "flower": 5}


def declared(var: Path, *, services: tuple[str, ...] = ("postgres", "redis")) -> list[Process]:
    secrets = load_secrets(var=var, environ={})
    return declare_processes(var=var, ports=PORTS, secrets=secrets, services=services)


def test_supervisord_reads_back_what_was_declared(tmp_path: Path) -> None:
    var = tmp_path / "50% of it"
    processes = [
        *declared(var),
        Process(name="odd", argv=["/a b/c", "100%", 'a"b', "it's"], environment={"SECRET": "a\\b%d, e=f"}),
    ]
    (var / "run").mkdir()
    (var / "log").mkdir()
    conf = var / "run" / "supervisord.conf"
    conf.write_text(render_configuration(processes, var=var, directory=tmp_path, environment={"EXITMGR_VAR": str(var)}))
    options = ServerOptions()
    options.realize(args=["-c", str(conf)])
    groups = {group.name: group for group in options.process_group_configs}
    found = {program.name: program for group in groups.values() for program in group.process_configs}

    assert [groups["services"].priority, groups["programs"].priority] == [1, 2]
    assert {name: shlex.split(program.command) for name, program in found.items()} == {
        process.name: list(process.argv) for process in processes
    }
    assert found["odd"].environment == {
        "EXITMGR_VAR": str(var),
        "EXITMGR_PROCESS": "odd",
        "SECRET": "a\\b%d, e=f",
    }
    kept = {(p.autostart, p.autorestart.__name__, p.stopasgroup, p.killasgroup) for p in found.values()}
    assert kept == {(False, "RestartUnconditionally", False, True)}


def test_stops_have_a_worker_of_their_own_and_come_first_in_every_other(tmp_path: Path) -> None:
    lanes = {
        process.name: process.argv[process.argv.index("--queues") + 1].split(",")
        for process in declared(tmp_path)
        if "--queues" in process.argv
    }
    assert lanes == {
        "stop": ["emergency", "stop_loss"],
        "orders": ["emergency", "stop_loss", "take_profit", "entry"],
        "scan": ["scan"],
        "maintenance": ["maintenance"],
    }


def test_no_secret_stands_on_a_command_line(tmp_path: Path) -> None:
    secrets = load_secrets(var=tmp_path, environ={})
    words = " ".join(word for process in declared(tmp_path) for word in process.argv)
    fields = [name for name in Secrets.__dataclass_fields__ if name != "exitmgr_keys"]
    assert [name for name in fields if getattr(secrets, name) in words] == []
    assert secrets.exitmgr_keys[0] not in words


def test_given_servers_are_not_run(tmp_path: Path) -> None:
    assert [p.name for p in declared(tmp_path, services=("redis",)) if p.phase is Phase.SERVICES] == ["redis"]
    assert [p.name for p in declared(tmp_path, services=()) if p.phase is Phase.SERVICES] == []


@pytest.mark.parametrize(("_case", "word"), [("comment", "/a ;b"), ("other comment", "/a #b"), ("line break", "/a\nb")])
def test_what_the_format_cannot_hold_is_refused(_case: str, word: str, tmp_path: Path) -> None:
    process = Process(name="x", argv=[word])
    with pytest.raises(SupervisionError, match="supervisord cannot"):
        render_configuration([process], var=tmp_path, directory=tmp_path, environment={})
    with pytest.raises(SupervisionError, match="supervisord cannot"):
        render_configuration(
            [Process(name="x", argv=["y"], environment={"SECRET": word})],
            var=tmp_path,
            directory=tmp_path,
            environment={},
        )


def test_a_long_path_gets_a_short_private_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = Path("/v")
    assert socket_path(short) == Path("/v/run/supervisor.sock")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    var = Path("/") / ("deep" * 40)
    path = socket_path(var)
    assert not path.parent.exists()
    make_socket_folder(var)
    assert len(os.fsencode(path)) <= max(LONGEST_SOCKET_PATH, len(os.fsencode(tmp_path)) + 50)
    assert path.parent.parent == tmp_path
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.parent.chmod(0o755)
    with pytest.raises(SupervisionError, match="not a private folder"):
        socket_path(var)
    path.parent.chmod(0o700)
    remove_socket_folder(var)
    assert list(tmp_path.iterdir()) == []
