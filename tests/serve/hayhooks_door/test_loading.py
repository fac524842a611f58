"""Loading wrappers, and the faults of those that can't be."""

from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from modes.kinds import RESERVED_NAMES
from serve.app import build_app
from serve.cli import app
from serve.hayhooks_door.loading import WrapperFaultError, load, wrapper_directories
from serve.service import Service
from tests.serve.conftest import without_llm
from tests.serve.hayhooks_door.conftest import BROKEN, SECRET, write

HEAD = """\
from hayhooks import BasePipelineWrapper
from starlette.datastructures import Headers


class PipelineWrapper(BasePipelineWrapper):
    def setup(self) -> None:
        self.pipeline = None
"""
SOUND = f"{HEAD}\n    def run_api(self, name: str) -> str:\n        return name\n"


def fault_of(folder: Path, code: str, name: str = "mine", **more: object) -> tuple[int, str]:
    """Write a wrapper, load it, and give the line and the text of its fault."""
    write(folder, **{f"{name}__pipeline_wrapper": code})
    with pytest.raises(WrapperFaultError) as caught:
        load(folder / name, **more)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value.fault)
    assert caught.value.fault.file.is_relative_to(folder / name)
    return caught.value.fault.line, caught.value.fault.message


@pytest.mark.parametrize(
    ("code", "line", "part"),
    [
        ("import nothing_of_this_name\n", 1, "there is no module nothing_of_this_name"),
        ("\nfrom .nothing import x\n", 2, "there is no module .nothing"),
        ("x = 1\ny = (\n", 2, "no Python: '(' was never closed"),
        (f"\nraise SyntaxError('{SECRET}')\n", 2, "raised SyntaxError; the log has the reason"),
        (f"\nraise ModuleNotFoundError(name='{SECRET}')\n", 2, "raised ModuleNotFoundError"),
        ("x = 1\n", 1, "does not define a 'PipelineWrapper' class"),
        (f"{HEAD}        raise ValueError('{SECRET}')\n{SOUND[len(HEAD) :]}", 8, "raised ValueError"),
        (HEAD, 1, "At least one of run_api"),
        (f"{HEAD}\n    def run_api(self, name: str):\n        return name\n", 1, "missing a return type"),
        (f"{HEAD}\n    def run_api(self, what: Missing) -> str: ...\n", 9, "the name Missing is not defined"),
        (
            f"from __future__ import annotations\n{HEAD}\n    def run_api(self, a: Missing) -> str: ...\n",
            1,
            "the name Missing is not defined",
        ),
        (
            f"{HEAD}\n    def run_api(self, wrapper: BasePipelineWrapper) -> str: ...\n",
            9,
            "parameter 'wrapper' of run_api has a type that no request can carry",
        ),
        (
            f"{HEAD}\n    def run_api(self, do: type(print)) -> str: ...\n",
            9,
            "parameter 'do' of run_api has a type",
        ),
        (f"{HEAD}\n    def run_api(self, x) -> str: ...\n", 9, "parameter 'x' of run_api needs a type"),
        (
            f"{HEAD}\n    def run_api(self, headers: Headers) -> str: ...\n",
            1,
            "'headers: Headers | None = None'",
        ),
        (f"{HEAD}\n    def run_durable(self, context, request): ...\n", 1, "run_durable"),
    ],
)
def test_each_fault_has_its_line_and_no_secret(tmp_path: Path, code: str, line: int, part: str) -> None:
    """A wrapper that can't be served has a fault at its own line, which never holds the text of its exception."""
    assert fault_of(tmp_path, code)[0] == line
    assert part in fault_of(tmp_path, code)[1]


def test_the_reason_is_one_line_for_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who may read the log gets the text of what was raised in one line, and at DEBUG the wrapper's own frames."""
    code = f"{HEAD}        import json\n        json.loads('{{')\n"
    write(tmp_path, mine__pipeline_wrapper=code)
    with caplog.at_level("DEBUG", "thresher.wrapper"), pytest.raises(WrapperFaultError) as caught:
        load(tmp_path / "mine")
    said = "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    shown = f"{tmp_path}/mine/pipeline_wrapper.py:9: loading it raised JSONDecodeError: {said}"
    assert str(caught.value) == shown
    [trace] = [record for record in caplog.records if record.name == "thresher.wrapper"]
    assert trace.levelname == "DEBUG"
    assert trace.exc_info is None
    frames = [line for line in trace.message.splitlines() if line.startswith("  File")]
    assert frames == [f'  File "{tmp_path}/mine/pipeline_wrapper.py", line 9, in setup']


@pytest.mark.parametrize(
    ("name", "part"), [("query", "is a route"), ("v1", "is a route"), ("a.b", "letters, digits")]
)
def test_a_name_must_be_free_and_plain(tmp_path: Path, name: str, part: str) -> None:
    """A wrapper called like a route, or with a name that no URL should have, is a fault."""
    assert part in fault_of(tmp_path, SOUND, name)[1]


def test_a_name_that_is_taken_is_a_fault(tmp_path: Path) -> None:
    """A wrapper can't have the name of a mode."""
    assert "already" in fault_of(tmp_path, SOUND, "crag", taken={"crag"})[1]


def test_directories_with_python_must_be_wrappers(tmp_path: Path) -> None:
    """A misspelt pipeline_wrapper.py is a fault; directories without Python, hidden ones and stages are none."""
    write(tmp_path, mine__pipeline_warpper=SOUND, stages__helper="", sound__pipeline_wrapper=SOUND)
    write(tmp_path, **{".hidden__pipeline_wrapper": SOUND})
    (tmp_path / "notes").mkdir()
    assert [path.name for path in wrapper_directories(tmp_path)] == ["mine", "sound"]
    with pytest.raises(
        WrapperFaultError, match=r"needs a file pipeline_wrapper.py; there is pipeline_warpper.py"
    ):
        load(tmp_path / "mine")


def test_a_wrapper_called_like_a_library_is_in_nobodys_way(tmp_path: Path) -> None:
    """Directories named like modules in use are loaded under other names, and can import from beside them."""
    import serve

    for name in ("serve", "json"):
        write(
            tmp_path,
            **{f"{name}__pipeline_wrapper": f"from .words import X\n{SOUND}", f"{name}__words": "X = 1\n"},
        )
        assert load(tmp_path / name).name == name
    import json

    assert json.dumps({}) == "{}"
    assert Path(serve.__file__).parent.name == "serve"
    assert tmp_path not in Path(serve.__file__).parents


@pytest.mark.parametrize("allowed", [True, False])
def test_wrappers_can_be_switched_off(tmp_path: Path, allowed: bool) -> None:
    """With PIPELINE_WRAPPERS off no code is run, and each directory is a fault."""
    write(
        tmp_path / "pipelines",
        mine__pipeline_wrapper=f"import pathlib\npathlib.Path('{tmp_path}/ran').touch()\n{SOUND}",
    )
    settings = without_llm(tmp_path, pipelines_dir=tmp_path / "pipelines", pipeline_wrappers=allowed)
    service = Service(settings)
    build_app(service)
    assert (tmp_path / "ran").exists() == allowed == ("mine" in service.wrappers)
    assert ("PIPELINE_WRAPPERS" in str(service.registry.faults)) != allowed
    service.lock.release()


def test_every_route_keeps_its_name_to_itself(door: httpx.Client) -> None:
    """The names that nothing else may have are the first parts of all paths but those of what is served by name."""
    served = set(door.get("/status").json()["pipelines"])
    paths = [*door.get("/openapi.json").json()["paths"], "/docs", "/mcp"]
    first = {path.split("/")[1] for path in paths} - served - {""}
    assert first <= RESERVED_NAMES
    for name in ("docs", "mcp"):
        assert door.get(f"/{name}").status_code != 404


def test_the_commands_tell_of_pipelines_and_wrappers(
    pipelines_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`thresher modes` lists what is no mode without running its code; `thresher check` tells kinds and faults."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("LLM_PROVIDER", "extractive")
    monkeypatch.setenv("PIPELINES_DIR", str(pipelines_dir))
    monkeypatch.setenv("COLUMNS", "200")
    # Its handler would write to what stands for standard error here, after this test as well.
    monkeypatch.setattr("serve.telemetry.configure_logging", lambda level: None)
    listed = CliRunner().invoke(app, ["modes"])
    assert listed.exit_code == 1
    assert listed.stderr.startswith(f"{pipelines_dir}/{BROKEN['slipped']}: ")
    assert {"crag", "ranker", "greeting", "broken"} <= set(listed.stdout.replace("│", " ").split())
    files = [str(pipelines_dir / name) for name in ("ranker.yml", "greeting", "broken")]
    checked = CliRunner().invoke(app, ["check", *files])
    assert checked.exit_code == 1
    assert f"{files[0]}: a plain pipeline" in checked.stdout
    assert f"{files[1]}: a wrapper" in checked.stdout
    assert f"{files[2]}/pipeline_wrapper.py:2: loading it raised RuntimeError: {SECRET}\n" == checked.stderr


def test_a_directory_is_checked_as_pipelines_dir_would_be(
    pipelines_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`thresher check` of a directory that is no wrapper checks all in it, and says when there is nothing."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LLM_PROVIDER", "extractive")
    monkeypatch.setattr("serve.telemetry.configure_logging", lambda level: None)
    checked = CliRunner().invoke(app, ["check", str(pipelines_dir)])
    assert checked.exit_code == 1
    kinds = {"ranker.yml": "a plain pipeline", "search.yml": "a plain pipeline"}
    kinds |= {"greeting": "a wrapper", "upload": "a wrapper"}
    assert checked.stdout.splitlines() == [
        f"{pipelines_dir}/{name}: {kinds[name]}"
        for name in ("ranker.yml", "search.yml", "greeting", "upload")
    ]
    faults = [line.split(": ")[0] for line in checked.stderr.splitlines()]
    assert sorted(faults) == [f"{pipelines_dir}/{place}" for place in BROKEN.values()]
    write(tmp_path / "mine", crag__pipeline_wrapper=SOUND)
    assert "already" in CliRunner().invoke(app, ["check", str(tmp_path / "mine")]).stderr
    (tmp_path / "empty").mkdir()
    empty = CliRunner().invoke(app, ["check", str(tmp_path / "empty")])
    assert (empty.exit_code, empty.stdout) == (1, "")
    assert empty.stderr.startswith(f"{tmp_path}/empty: there is nothing to check: ")
