"""The defaults talk to nobody outside of this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SCRIPT = """
import ipaddress, json, socket, sys

real_connect, real_getaddrinfo = socket.socket.connect, socket.getaddrinfo
outside = []

def is_outside(host):
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host not in ("localhost", None, b"localhost")

def connect(self, address, *rest):
    if self.family in (socket.AF_INET, socket.AF_INET6) and is_outside(address[0]):
        outside.append(str(address))
        raise ConnectionRefusedError("blocked")
    return real_connect(self, address, *rest)

def getaddrinfo(host, *rest, **more):
    if is_outside(host):
        outside.append(str(host))
        raise socket.gaierror("blocked")
    return real_getaddrinfo(host, *rest, **more)

socket.socket.connect, socket.getaddrinfo = connect, getaddrinfo

from pathlib import Path
from registry import ModeRegistry
from haystack import Document
from settings import Settings

settings = Settings.load(data_dir=Path(sys.argv[1]), embedded_model="qwen2.5-coder-0.5b")
with ModeRegistry(settings) as registry:
    registry.warm_up()
    text = "The Eiffel Tower in Paris is 330 metres tall."
    registry.indexing["ingest"].run("acme", [Document(content=text, meta={"document_id": "d", "title": ""})])
    question = "How tall is the Eiffel Tower?"
    answers = {name: registry[name].run(query=question, tenant_id="acme").answer for name in registry}
    provider = registry.resources.chat_models.provider
print(json.dumps({"outside": outside, "provider": provider, "answers": answers}))
"""


@pytest.mark.model
def test_no_traffic_leaves_the_machine(tmp_path: Path, small_model_path: Path) -> None:
    """Loading, ingesting and asking in every mode with the built-in models asks for no address outside loopback.

    Native code opens sockets that Python does not see: onnxruntime's telemetry is known by the file it keeps.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OLLAMA", "OPENAI", "CHROMA", "HAYSTACK", "ORT"))
    }
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "data")],
        cwd=ROOT,
        env={**environment, "HOME": str(tmp_path), "MODELS_DIR": str(small_model_path.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["outside"] == []
    assert told["provider"] == "embedded"
    assert set(told["answers"]) == {"standard", "crag", "structured", "crag_structured"}
    assert all(told["answers"].values())
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
