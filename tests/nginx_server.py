"""nginx for tests: its own process on a free port, with nothing configured but where to pass requests on."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port

START_SECONDS = 30
# One process, so that ending it ends all of it; its folders, which are the system's otherwise, are the test's.
CONFIG = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass {upstream}; {more} }}
    }}
}}
"""


@contextmanager
def nginx_before(upstream: str, more: str = "") -> Iterator[str]:
    """
    Run nginx in front of a server; skip the test where there is no nginx, but fail it on CI.

    :param upstream: the server's URL.
    :param more: what else its configuration says where it passes requests on.
    :returns: nginx's URL.
    """
    # Debian has it where the PATH of an ordinary user does not lead.
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        missing = "no nginx on the PATH or in /usr/sbin: install it (Debian, Ubuntu: apt install nginx-light)"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    with tempfile.TemporaryDirectory(prefix="thresher-nginx-") as name:
        folder, port = Path(name), free_port()
        config = folder / "nginx.conf"
        text = CONFIG.format(folder=folder, port=port, upstream=upstream, more=more)
        config.write_text(text, encoding="utf-8")
        with (folder / "nginx.log").open("ab") as output:
            command = [program, "-c", str(config), "-p", str(folder), "-e", "stderr"]
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _wait(process, port, folder / "nginx.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.02)
    pytest.fail(f"nginx did not start: {log.read_text(errors='replace')}")
