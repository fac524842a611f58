"""Sending files to a service that is busy, broken off, or takes less than is sent."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.commands.client import Client, job_id_of
from serve.commands.replies import ServiceError, answer_in, events_in
from serve.commands.sending import Following, Sending, Tally
from serve.commands.sources import SourceFile
from serve.locking import DataDirLock
from settings import Settings

JOB = {"status": "done", "error": None, "documents_skipped": 0, "documents_failed": 0, "chunks_ok": 1}
BROKEN_OFF = (0, {})


class Upload:
    """What was sent: the names of the files, and the idempotency key."""

    def __init__(self, tenant: str, key: str, body: bytes) -> None:
        self.tenant = tenant
        self.key = key
        self.names = [name.decode() for name in re.findall(rb'filename="([^"]*)"', body)]

    def job(self) -> tuple[int, dict[str, Any]]:
        """The answer to an upload that is accepted; the job is done when it is asked for."""
        count = len(self.names)
        job = {
            **JOB,
            "job_id": job_id_of(self.tenant, self.key),
            "tenant_id": self.tenant,
            "total": count,
            "documents_ok": count,
            "sources": [],
        }
        return 202, {**job, "status": "running"}


Answer = Callable[[Upload], tuple[int, dict[str, Any]]]


@contextmanager
def service(folder: Path, answer: Answer, finishes: bool = True) -> Iterator[list[Upload]]:
    """A service that answers uploads as it is told, and knows the jobs that it gave; gives the uploads."""
    uploads: list[Upload] = []
    jobs: dict[str, dict[str, Any]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            job = jobs.get(self.path.rpartition("/")[2])
            if job and finishes:
                job["status"] = "done"
            self.reply(200, job) if job else self.reply(404, {"detail": "no job"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            tenant = self.path.partition("tenant_id=")[2]
            uploads.append(Upload(tenant, self.headers["Idempotency-Key"], body))
            status, given = answer(uploads[-1])
            if status == 202:
                jobs[given["job_id"]] = given
            self.reply(status, given)

        def reply(self, status: int, given: dict[str, Any]) -> None:
            if not status:
                self.connection.close()
                return
            content = json.dumps(given).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if status == 429:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    lock = DataDirLock(folder / "data")
    lock.acquire()
    lock.announce(f"http://127.0.0.1:{server.server_port}")
    try:
        yield uploads
    finally:
        lock.release()
        server.shutdown()
        thread.join()
        server.server_close()


def send(folder: Path, *names: str, tenant: str = "acme", **settings: Any) -> Tally:
    """Send small files through the service that holds the folder's data."""
    files = []
    for name in names:
        (folder / name).write_text(name)
        files.append(SourceFile(folder / name, name, len(name)))
    with Client(Settings.load(data_dir=folder / "data", **settings)) as client:
        following = Following(client, lambda _: None, len(files))
        Sending(client, following, tenant, None).send(files)
        return following.to_the_end()


def test_a_broken_connection_is_repeated_under_the_same_key(tmp_path: Path) -> None:
    """When the answer to an upload is lost, the upload is sent again and can be known by its key."""
    answers = iter([BROKEN_OFF, BROKEN_OFF])
    with service(tmp_path, lambda upload: next(answers, None) or upload.job()) as uploads:
        assert send(tmp_path, "a.md").ok == 1
    assert len(uploads) == 3
    assert len({upload.key for upload in uploads}) == 1


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    """An upload that a full queue refuses is sent again until it is accepted."""
    full = (429, {"type": "urn:thresher:problem:tenant-queue-full", "detail": "full"})
    answers = iter([full])
    with service(tmp_path, lambda upload: next(answers, None) or upload.job()) as uploads:
        assert send(tmp_path, "a.md").ok == 1
    assert len(uploads) == 2


def test_what_is_too_large_goes_in_smaller_parts(tmp_path: Path) -> None:
    """A part that a service refuses as too large is halved; a file that is too large alone has failed."""

    def answer(upload: Upload) -> tuple[int, dict[str, Any]]:
        if len(upload.names) > 1 or upload.names == ["big.md"]:
            return 413, {"detail": "too large"}
        return upload.job()

    with service(tmp_path, answer):
        tally = send(tmp_path, "a.md", "b.md", "big.md", "c.md")
    assert (tally.total, tally.ok, tally.failed) == (4, 3, 1)
    [remark] = tally.remarks
    assert (remark.name, remark.status, remark.reason) == ("big.md", "failed", "too large")


def test_parts_keep_within_the_limits_of_the_settings(tmp_path: Path) -> None:
    """Files are parted by number and by size; none is lost, each goes once."""
    with service(tmp_path, lambda upload: upload.job()) as uploads:
        send(tmp_path, "a.md", "b.md", "c.md", max_documents_per_job=2)
        send(tmp_path, "d.md", "e.md", "f.md", max_upload_bytes=2_500)
    assert [upload.names for upload in uploads] == [["a.md", "b.md"], ["c.md"], ["d.md", "e.md"], ["f.md"]]


def test_the_same_files_again_are_a_job_of_their_own(tmp_path: Path) -> None:
    """Once a job is finished, the same files given again are sent again: a document may have been deleted since."""
    with service(tmp_path, lambda upload: upload.job()) as uploads:
        send(tmp_path, "a.md")
        send(tmp_path, "a.md", tenant="other")
        send(tmp_path, "a.md")
    assert len({(upload.tenant, upload.key) for upload in uploads}) == 3


def test_what_is_under_way_is_not_sent_again(tmp_path: Path) -> None:
    """Files that a command sent before it was broken off are in an unfinished job, which is followed instead."""
    with service(tmp_path, lambda upload: upload.job(), finishes=False) as uploads:
        for _ in range(2):
            (tmp_path / "a.md").write_text("a.md")
            with Client(Settings.load(data_dir=tmp_path / "data")) as client:
                following = Following(client, lambda _: None)
                Sending(client, following, "acme", None).send([SourceFile(tmp_path / "a.md", "a.md", 4)])
                assert len(following.unfinished) == 1
    assert len(uploads) == 1


def test_other_refusals_end_the_command(tmp_path: Path) -> None:
    """What the service refuses for good is raised in its own words."""
    with (
        service(tmp_path, lambda _: (422, {"detail": "there is no indexing pipeline 'x'"})),
        pytest.raises(ServiceError, match="there is no indexing pipeline 'x'"),
    ):
        send(tmp_path, "a.md")


@pytest.mark.parametrize("kind", ["missing-key", "invalid-key", "forbidden"])
def test_a_command_whose_key_does_not_do_says_where_it_goes(kind: str) -> None:
    """Behind the service's own words stands the setting that holds the command's key."""
    problem = {"type": f"urn:thresher:problem:{kind}", "detail": "that is refused"}
    with pytest.raises(ServiceError, match=r"^that is refused; this command sends the key in API_KEY"):
        answer_in(httpx.Response(401, json=problem))


@pytest.mark.parametrize(
    ("detail", "wait", "shown"),
    [
        ("full; try again after the seconds in Retry-After", 7, "full; try again after 7 seconds"),
        ("full; try again after the seconds in Retry-After", 1, "full; try again after 1 second"),
        ("full; try again after the seconds in Retry-After", None, "full; try again after a while"),
        ("the service stops", 2, "the service stops; try again after 2 seconds"),
        ("it is broken", None, "it is broken"),
    ],
)
def test_who_sees_no_header_hears_when_to_try_again(detail: str, wait: int | None, shown: str) -> None:
    """The seconds of `Retry-After` stand in the message, for an answer and for the error in a stream of events."""
    headers = {} if wait is None else {"Retry-After": str(wait)}
    with pytest.raises(ServiceError) as caught:
        answer_in(httpx.Response(503, json={"detail": detail}, headers=headers))
    assert str(caught.value) == shown
    problem = {"detail": detail, "status": 503, **({} if wait is None else {"retry_after": wait})}
    events = f"event: error\ndata: {json.dumps(problem)}\n\n".encode()
    with pytest.raises(ServiceError) as caught:
        list(events_in(httpx.Response(200, content=events)))
    assert str(caught.value) == shown
