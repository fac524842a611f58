"""Ingesting through a running service."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from serve.client import HttpClient
from serve.locking import DataDirLock
from tests.serve.test_cli import thresher

JOB = {"job_id": "j", "status": "done", "error": None}


@contextmanager
def service() -> Iterator[tuple[str, list[list[dict]]]]:
    """A service that fails every document of the id `bad.txt`; gives its URL and the documents of each request."""
    requests: list[list[dict]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({"status": "ok"})

        def do_POST(self) -> None:
            documents = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["documents"]
            requests.append(documents)
            bad = [document["id"] for document in documents if document["id"] == "bad.txt"]
            counts = {"documents_ok": len(documents) - len(bad), "documents_failed": len(bad), "chunks_ok": 1}
            errors = [{"document_id": name, "error": "cannot be embedded"} for name in bad]
            self.answer({**JOB, **counts, "errors": errors})

        def answer(self, body: dict) -> None:
            content = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_documents_that_failed_are_named(tmp_path: Path) -> None:
    """A job that is done but lost a document prints which and why, and the command exits with 1."""
    (tmp_path / "bad.txt").write_text("bad")
    (tmp_path / "good.txt").write_text("good")
    lock = DataDirLock(tmp_path / "data")
    lock.acquire()
    try:
        with service() as (url, _):
            lock.announce(url)
            run = thresher("ingest", "bad.txt", "good.txt", folder=tmp_path)
    finally:
        lock.release()
    assert run.returncode == 1
    assert "bad.txt: cannot be embedded" in run.stderr
    assert "1 documents, 1 chunks" in run.stdout


def test_requests_are_limited_by_their_size() -> None:
    """Long documents are sent in several requests, each within what a service takes; none is lost."""
    documents = [{"id": str(number), "text": "ä" * 1_500_000, "title": "", "meta": {}} for number in range(5)]
    with service() as (url, requests):
        client = HttpClient(url, 30)
        result = client.ingest(documents, "acme", lambda _: None)
        client.close()
    assert [[document["id"] for document in part] for part in requests] == [["0", "1"], ["2", "3"], ["4"]]
    assert (result.documents, result.errors) == (5, [])
