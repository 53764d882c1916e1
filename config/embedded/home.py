"""Owns where the embedded servers live and as whom they run: never as root, nothing changed outside var/.

A server's folder is locked (flock on a descriptor the server inherits) for exactly as long as any of its
processes lives, so "is it running" needs no pid file and a zombie is never taken for a live server.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

ROOT = Path(__file__).resolve().parents[2]
MARK = "EXITMGR_VAR"  #: this variable in a process's environment says which installation started it
PRIVATE_PARENT = Path("/var/tmp")  # noqa: S108  made and checked with care in _private_folder
COMMANDS = {"postgres": "postgres", "redis": "redis-server"}  #: service → the name its processes carry


class EmbeddedError(RuntimeError):
    """A person can act on this: the message says what is wrong and what to do."""


def default_var(environ: Mapping[str, str] = os.environ) -> Path:
    """Return this installation's folder of data: EXITMGR_VAR, else var/ beside the source."""
    return Path(environ.get(MARK) or ROOT / "var").absolute()


def server_account() -> pwd.struct_passwd | None:
    """Return the account the servers run as, or None to run them as the user who asks (anyone but root)."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError(
            "Postgres refuses to run as root and there is no user 'nobody': run as another user"
        ) from None


def service_folder(var: Path, service: str) -> Path:
    """Make, and return with all links resolved, the folder of one service: data, and binaries if copied.

    :raises EmbeddedError: the place is somebody else's, or cannot be reached by the servers' account.
    """
    account = server_account()
    make_var(var)
    try:
        lock = os.open(var / "run" / ".home.lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)  # both servers start at once; closed with the descriptor
        home = var / "services"
        if account is None:
            home.mkdir(mode=0o700, exist_ok=True)
            if home.stat().st_uid != os.geteuid():
                raise EmbeddedError(
                    f"{home} belongs to another user: run as that user, or set {MARK} to a folder of yours"
                )
        elif not home.exists():
            home = _make_home(var, account)
        elif not _can_enter(home.resolve(), account):
            raise EmbeddedError(f"user {account.pw_name} cannot enter {home} any more: open its parents, or set {MARK}")
        folder = home.resolve() / service
        folder.mkdir(mode=0o700, exist_ok=True)
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid, follow_symlinks=False)
        os.close(lock)
    except OSError as error:
        raise EmbeddedError(
            f"cannot use {error.filename or var}: {error.strerror}; set {MARK} to a folder of yours"
        ) from error
    return folder


def make_var(var: Path) -> None:
    """Make the folders of data, logs and run-time state: others may pass through, never list or read.

    :raises EmbeddedError: the place is not writable.
    """
    try:
        var.mkdir(mode=0o711, parents=True, exist_ok=True)
        for folder in (var / "run", var / "log"):
            folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise EmbeddedError(
            f"cannot write {error.filename or var}: {error.strerror}; set {MARK} to a folder of yours"
        ) from error


def is_running(var: Path, service: str) -> bool:
    """Say whether any process of the server is alive."""
    try:
        lock = os.open((var / "services").resolve() / service, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        return not _locked(lock)
    finally:
        os.close(lock)


def discard_home(var: Path) -> None:
    """Delete the servers' data of an installation, also outside var/; they must be stopped."""
    home = var / "services"
    if home.is_symlink():
        target = home.resolve()
        if target.parent == PRIVATE_PARENT and target.name.startswith("exitmgr-"):
            shutil.rmtree(target, ignore_errors=True)
        home.unlink()
    shutil.rmtree(home, ignore_errors=True)


def _make_home(var: Path, account: pwd.struct_passwd) -> Path:
    home = var / "services"
    home.unlink(missing_ok=True)  # a link whose target is gone
    var.chmod(var.stat().st_mode | 0o011)  # to pass through, not to list
    home.mkdir(mode=0o711)
    home.chmod(0o711)
    if not _can_enter(home, account):
        home.rmdir()
        home.symlink_to(_private_folder(var, account))
    return home


def _private_folder(var: Path, account: pwd.struct_passwd) -> Path:
    """Make the folder outside that stands in for var/services where nobody could not pass var's parents."""
    path = PRIVATE_PARENT / f"exitmgr-{hashlib.sha256(os.fsencode(var.resolve())).hexdigest()[:16]}"
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        found = os.fstat(folder)
        if found.st_uid not in (0, account.pw_uid) or stat.S_IMODE(found.st_mode) & 0o077:
            raise EmbeddedError(f"{path} is not ours: remove it, or set {MARK} to a folder other users can enter")
        # what an installation left here whose var/ was deleted can be read by no one: its passwords are gone
        for leftover in path.iterdir():
            for process in live_processes(leftover / "data", leftover.name):
                process.kill()
            shutil.rmtree(leftover)
        os.fchown(folder, account.pw_uid, account.pw_gid)
    finally:
        os.close(folder)
    return path


def _can_enter(folder: Path, account: pwd.struct_passwd) -> bool:
    probe = ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)]
    return (
        subprocess.run(
            probe,
            cwd="/",
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )


def own_service(var: Path, service: str, folder: Path, *, patience: float = 10) -> int:
    """Take the folder for the server about to be started; return the lock's descriptor, to be inherited.

    A server that lost its launcher (kill -9) is stopped first.

    :raises EmbeddedError: the service is running and its launcher lives.
    """
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(lock, True)
    if not _locked(lock):
        owner = _owner_file(var, service)
        for process in live_processes(folder / "data", service):
            if _launched_by_a_live(process, owner):
                os.close(lock)
                raise EmbeddedError(f"the {service} server of {var} is already running (pid {process.pid})")
        stop_processes(folder / "data", service)
        deadline = time.monotonic() + patience
        while not _locked(lock):
            if time.monotonic() > deadline:
                os.close(lock)
                raise EmbeddedError(f"another program is starting the {service} server of {var}")
            time.sleep(0.05)
    launcher = os.getppid()
    _owner_file(var, service).write_text(json.dumps({"launcher": launcher, "started": _start_time(launcher)}))
    return lock


def stop_orphan(var: Path, service: str) -> None:
    """Stop the server if its launcher died without stopping it.

    :raises EmbeddedError: the service is running and its launcher lives.
    """
    if is_running(var, service):
        os.close(own_service(var, service, service_folder(var, service)))


def become_server(argv: list[str], *, var: Path, workdir: Path) -> None:
    """Replace this process by the server, as its account and with a clean environment; never returns."""
    account = server_account()
    if account is not None:
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    os.umask(0o077)
    os.chdir(workdir)
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C", "TZ": "UTC", MARK: str(var)}
    os.execve(argv[0], argv, environment)  # noqa: S606  the supervisor must own the server itself, not a shell


def live_processes(data: Path, service: str) -> list["psutil.Process"]:
    """Return a server's processes, found by their working folder: both servers work in their data."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name().startswith(COMMANDS.get(service, service)) and process.cwd() == str(data):
                found.append(process)
    return found


def process_name(pid: int) -> str:
    """Return the name of the program a process runs, or nothing once it is gone."""
    import psutil

    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return ""


def is_alive(process: "psutil.Process") -> bool:
    """Say whether the process still runs; one that only waits to be reaped does not."""
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def stop_processes(data: Path, service: str, *, patience: float = 15) -> None:
    """Stop what is left of a server: politely, then at once, then by force."""
    import psutil

    for name, seconds in (
        ("SIGINT" if service == "postgres" else "SIGTERM", patience),
        ("SIGQUIT", 2),
        ("SIGKILL", 5),
    ):
        processes = live_processes(data, service)
        if not processes:
            return
        pids = {process.pid for process in processes}
        heads = [process for process in processes if process.ppid() not in pids]
        for process in heads if name != "SIGKILL" else processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(getattr(signal, name))
        deadline = time.monotonic() + seconds
        while any(is_alive(process) for process in processes) and time.monotonic() < deadline:
            time.sleep(0.02)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _launched_by_a_live(process: "psutil.Process", owner: Path) -> bool:
    import psutil

    try:
        launcher = json.loads(owner.read_text())
        return bool(process.ppid() == launcher["launcher"] and _start_time(process.ppid()) == launcher["started"])
    except (OSError, ValueError, KeyError, psutil.Error):
        return False


def _start_time(pid: int) -> float:
    import psutil

    return psutil.Process(pid).create_time()


def _owner_file(var: Path, service: str) -> Path:
    return var / "run" / f"{service}.launcher"
