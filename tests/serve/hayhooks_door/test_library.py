"""The contract with the pinned Hayhooks: every half-private part that `library` touches, and what it relies on."""

import asyncio
import importlib.metadata
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient
from hayhooks import create_app
from hayhooks.server.logger import RequestIdMiddleware
from hayhooks.server.utils import deploy_utils, module_loader
from hayhooks.settings import AppSettings, settings
from starlette.responses import PlainTextResponse

from serve.hayhooks_door import library
from serve.hayhooks_door.library import BasePipelineWrapper

ROOT = Path(__file__).parents[3]


def wrapper_of(run_api_async: Any) -> BasePipelineWrapper:
    """Make a wrapper of one method."""
    return library.make_wrapper({"setup": lambda self: None, "run_api_async": run_api_async})


def client_of(**methods: Any) -> TestClient:
    """Serve wrappers by name."""
    app = library.create_hayhooks_app()
    library.publish(app, [library.prepare(name, wrapper_of(method)) for name, method in methods.items()])
    return TestClient(app, raise_server_exceptions=False)


def test_hayhooks_is_the_pinned_one() -> None:
    """These tests speak of 2.1."""
    assert importlib.metadata.version("hayhooks").startswith("2.1.")


def test_the_settings_that_are_changed_are_hayhooks_own() -> None:
    """Each setting that is closed is there, would be something else, and is what it was set to."""
    defaults = {
        name: field.get_default(call_default_factory=True) for name, field in AppSettings.model_fields.items()
    }
    for name, value in library.CLOSED_SETTINGS.items():
        assert name in defaults
        assert getattr(settings, name) == value
    assert defaults["cors_allow_origins"] == ["*"]
    assert settings.cors_allow_origins == []


def test_what_is_taken_out_is_in_hayhooks_application() -> None:
    """Hayhooks' application has the routes and the middleware that ours must not have."""
    assert RequestIdMiddleware in [entry.cls for entry in create_app().user_middleware]
    assert RequestIdMiddleware not in [entry.cls for entry in library.create_hayhooks_app().user_middleware]
    closed = {
        "/deploy-yaml",
        "/deploy_files",
        "/undeploy/{pipeline_name}",
        "/draw/{pipeline_name}",
        "/v1/responses",
    }
    assert closed | {"/status"} <= set(create_app().openapi()["paths"])
    assert set(library.create_hayhooks_app().openapi()["paths"]) == {"/status", "/status/{pipeline_name}"}


def test_a_package_name_keeps_a_wrapper_off_the_path(tmp_path: Path) -> None:
    """With a name for its package, Hayhooks leaves sys.path alone."""
    assert "package_name" in inspect.signature(module_loader.load_pipeline_module).parameters
    assert "allow_durable" in inspect.signature(module_loader.create_pipeline_wrapper_instance).parameters
    (tmp_path / "mine").mkdir()
    code = "from hayhooks import BasePipelineWrapper\n\n\nclass PipelineWrapper(BasePipelineWrapper):\n"
    method = "    def setup(self): ...\n    def run_api(self) -> str: return ''\n"
    (tmp_path / "mine" / "pipeline_wrapper.py").write_text(code + method, "utf-8")
    before = list(sys.path)
    wrapper = library.load_wrapper("mine", tmp_path / "mine")
    assert sys.path == before
    assert "mine" not in sys.modules
    assert library.implements(wrapper, "run_api")
    assert not library.implements(wrapper, "run_api_async")
    assert wrapper._is_run_api_implemented


def test_a_route_is_made_of_the_request_model_that_is_given() -> None:
    """The model that refuses unknown fields is the one that Hayhooks' route reads."""

    async def run_api_async(self: Any, number: int = 3) -> int:
        return number

    client = client_of(double=run_api_async)
    assert client.post("/double/run", json={}).json() == {"result": 3}
    assert client.post("/double/run", json={"numbr": 1}).status_code == 422
    built = deploy_utils._build_run_route("double", wrapper_of(run_api_async))
    assert built is not None
    assert built[1].keys() == {"request_model", "response_model", "requires_files"}


def test_status_reads_the_registry_of_its_application() -> None:
    """Two applications in one process tell of their own wrappers only."""

    async def run_api_async(self: Any) -> int:
        return 1

    one, two = client_of(one=run_api_async), client_of(two=run_api_async)
    assert one.get("/status").json()["pipelines"] == ["one"]
    assert two.get("/status").json()["pipelines"] == ["two"]
    assert two.get("/status/one").status_code == 404


def test_hayhooks_tells_what_a_wrapper_raised() -> None:
    """Hayhooks puts an exception's text into its answer, which is why wrappers are guarded; ours pass it."""

    async def leak(self: Any) -> int:
        raise RuntimeError("secret")

    async def refuse(self: Any) -> int:
        raise HTTPException(409, "taken")

    client = client_of(leak=leak, refuse=refuse)
    assert "secret" in client.post("/leak/run", json={}).text
    assert (client.post("/refuse/run", json={}).status_code) == 409


def test_a_response_passes_hayhooks_unchanged() -> None:
    """What is streamed is answered by our own response."""

    async def run_api_async(self: Any) -> str:
        return PlainTextResponse("mine", 202)  # type: ignore[return-value]

    answer = client_of(mine=run_api_async).post("/mine/run", json={})
    assert (answer.status_code, answer.text) == (202, "mine")


def test_a_method_of_the_instance_is_the_one_that_is_called() -> None:
    """A method that is put on an instance, with its flag, is what Hayhooks' route runs."""

    class Wrapper(BasePipelineWrapper):
        def setup(self) -> None: ...

        def run_api(self, word: str) -> str:
            return word

    wrapper = module_loader.create_pipeline_wrapper_instance(type("M", (), {"PipelineWrapper": Wrapper}))

    async def guarded(word: str) -> str:
        return await asyncio.to_thread(str.upper, word)

    wrapper.run_api_async = guarded
    wrapper._is_run_api_async_implemented = True
    app = FastAPI()
    library.publish(app, [library.prepare("shout", wrapper)])
    assert TestClient(app).post("/shout/run", json={"word": "a"}).json() == {"result": "A"}


def test_the_environment_variables_that_count() -> None:
    """Other origins may be let in and a path added; what would deploy or go durable is ignored."""
    variables = {
        "HAYHOOKS_CORS_ALLOW_ORIGINS": '["https://a.example"]',
        "HAYHOOKS_ADDITIONAL_PYTHON_PATH": "/shared/code",
        "HAYHOOKS_DURABLE_MODE": "true",
        "HAYHOOKS_PIPELINES_DIR": "/nowhere",
    }
    code = (
        "import sys; from serve.hayhooks_door.library import create_hayhooks_app, hayhooks_settings as s;"
        " create_hayhooks_app(); print(s.cors_allow_origins, '/shared/code' in sys.path);"
        " print(repr(s.pipelines_dir), s.durable_mode)"
    )
    environment = {**os.environ, **variables, "HAYSTACK_TELEMETRY_ENABLED": "False"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=True)
    assert result.stdout.splitlines() == ["['https://a.example'] True", "'' False"]
