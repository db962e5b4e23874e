"""A report is served to this machine alone: no file outside of the run, no other name of this machine."""

from __future__ import annotations

import http.client
import re
import threading
from contextlib import contextmanager
from urllib.parse import unquote

import pytest

from medgen.errors import DataError
from medgen.report.serve import REPORT, ReportServer


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "cases").mkdir(parents=True)
    (folder / REPORT).write_text("the report")
    (folder / "cases" / "ünï.html").write_text("a case")
    (folder / ".medgen-lock").write_text("")
    (tmp_path / "secret.txt").write_text("another patient")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "outside").symlink_to(tmp_path)
    (folder / "inside.html").symlink_to(folder / REPORT)
    return folder


@contextmanager
def served(run):
    with ReportServer(run) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(server, path, host=None, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", f"127.0.0.1:{server.server_port}" if host is None else host)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer, body


@pytest.mark.parametrize("given", ["", REPORT])
def test_the_report_and_files_of_the_run_are_served(run, given):
    with served(run / given) as server:
        path = server.address.removeprefix(f"http://127.0.0.1:{server.server_port}")
        answer, body = ask(server, path)
        assert (answer.status, body) == (200, "the report")
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert ask(server, f"/{server.secret}/cases/%C3%BCn%C3%AF.html?x=1")[1] == "a case"
        assert ask(server, f"/{server.secret}/inside.html")[1] == "the report"
        assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/report.html",
        "/wrong/report.html",
        "/{secret}",
        "/{secret}/",
        "/{secret}/outside",
        "/{secret}/outside/",
        "/{secret}/../secret.txt",
        "/{secret}/..%2fsecret.txt",
        "/{secret}/cases/../../secret.txt",
        "/{secret}/link.txt",
        "/{secret}/outside/secret.txt",
        "/{secret}/.medgen-lock",
        "/{secret}//etc/passwd",
        "/{secret}/%00",
        "/{secret}/absent.html",
        "*",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_nothing_else_is(run, path, method):
    with served(run) as server:
        answer, body = ask(server, path.format(secret=server.secret), method=method)
        assert answer.status == 404
        assert "patient" not in body
        assert "medgen-lock" not in body


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "", "127.0.0.1"])
def test_another_name_of_this_machine_is_refused(run, host):
    with served(run) as server:
        answer, body = ask(server, f"/{server.secret}/{REPORT}", host.format(port=server.server_port))
        assert answer.status == 403
        assert "the report" not in body


@pytest.mark.parametrize("path", ["/{secret}/cases", "/{secret}/cases/"])
def test_a_folder_that_the_report_links_to_is_listed(run, tmp_path, path):
    (run / "cases" / "<b>.nii.gz").write_text("")
    (run / "cases" / ".hidden").write_text("")
    (run / "cases" / "out.txt").symlink_to(tmp_path / "secret.txt")
    with served(run) as server:
        answer, body = ask(server, path.format(secret=server.secret))
        assert answer.status == 200
        links = re.findall(r'href="([^"]*)"', body)
        assert [unquote(link.rpartition("/")[2]) for link in links] == ["<b>.nii.gz", "ünï.html"]
        assert "<b>" not in body
        assert ask(server, links[1])[1] == "a case"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(run, method):
    with served(run) as server:
        assert ask(server, f"/{server.secret}/{REPORT}", method=method)[0].status == 501


def test_a_folder_without_a_report_is_refused_with_what_to_open(run, tmp_path):
    with pytest.raises(DataError, match=rf"has no {REPORT} itself; expected the folder of one run: .*run"):
        ReportServer(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        ReportServer(tmp_path / "absent")
    (run / REPORT).unlink()
    with pytest.raises(DataError, match="expected the folder of a finished run"):
        ReportServer(run)
    (run / "config.yaml").write_text("")
    with pytest.raises(DataError, match="go on with it by --resume"):
        ReportServer(run)


def test_a_port_that_is_taken_is_named(run):
    with ReportServer(run) as server, pytest.raises(DataError, match=f"port {server.server_port}"):
        ReportServer(run, server.server_port)
