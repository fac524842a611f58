import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from registry import build
from resources import Resources
from serve.app import build_app
from serve.cli import app as command
from serve.errors import _PROBLEMS
from serve.schemas import QueryResponse
from serve.service import Service
from settings import Settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])
VARIABLES = {name.upper(): field for name, field in Settings.model_fields.items()}
COMMAND = typer.main.get_command(command)
TOP: dict[str, Any] = COMMAND.commands  # type: ignore[attr-defined]
COMMANDS = [
    *TOP,
    *(f"{group} {name}" for group, command in TOP.items() for name in getattr(command, "commands", ())),
]


def fenced(page: Path, language: str) -> list[str]:
    """Give the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


def rows(page: Path) -> Iterator[list[str]]:
    """Give the cells of each table row that begins with a name in backticks."""
    for line in page.read_text("utf-8").splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def shown(default: object) -> str:
    """Write a default as an environment variable has it; empty where nothing is set."""
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default in (None, ()) or not isinstance(default, str | int | float) else str(default)


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The routes of the application, as `METHOD /path`."""
    settings = Settings.load(data_dir=tmp_path_factory.mktemp("data"), llm_provider="extractive")
    service = Service(settings)
    application = build_app(service)
    while not hasattr(application, "openapi"):
        application = application.app  # type: ignore[attr-defined]
    paths = application.openapi()["paths"]
    modes = list(service.registry)
    service.registry.close()
    service.lock.release()
    return sorted(
        {
            f"{method.upper()} {'/{mode}/run' if path.removesuffix('/run').strip('/') in modes else path}"
            for path, methods in paths.items()
            for method in methods
        }
    )


def test_settings_page_names_every_setting_with_its_default() -> None:
    """docs/settings.md has one row for each setting, with its default, and none for anything else."""
    table = {cells[0].strip("`"): cells[1] for cells in rows(DOCS / "settings.md")}
    assert table.keys() == VARIABLES.keys()
    for name, field in VARIABLES.items():
        if default := shown(field.default):
            assert table[name] == f"`{default}`", name


def test_environment_example_names_every_setting_with_its_default() -> None:
    """.env.example shows each setting once, commented out, with its default."""
    text = (ROOT / ".env.example").read_text("utf-8")
    lines = dict(re.findall(r"^#([A-Z][A-Z0-9_]*)=(.*)$", text, re.M))
    assert lines.keys() == VARIABLES.keys()
    for name, field in VARIABLES.items():
        if default := shown(field.default):
            assert lines[name] == default, name


def test_environment_example_sets_nothing_until_it_is_changed() -> None:
    """.env.example copied as it stands changes no setting."""
    text = (ROOT / ".env.example").read_text("utf-8")
    assert [line for line in text.splitlines() if line and not line.startswith("#")] == []


def test_http_page_names_every_route_and_no_other(routes: list[str]) -> None:
    """The table of routes in docs/http.md has those of the application's OpenAPI document."""
    text = (DOCS / "http.md").read_text("utf-8")
    table = text.partition("## Routes\n")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"`([A-Z]+ /[^`]*)`", table)) == routes


def test_http_page_names_every_problem_with_its_status() -> None:
    """docs/http.md has each kind of problem that an error turns into, with its status."""
    table = {cells[0].strip("`"): cells[1] for cells in rows(DOCS / "http.md")}
    assert {kind: table.get(kind) for _, _, kind in _PROBLEMS} == {
        kind: str(code) for _, code, kind in _PROBLEMS
    }


def test_commands_page_names_every_command_and_target() -> None:
    """docs/commands.md names each command of thresher and each target of the Makefile."""
    text = (DOCS / "commands.md").read_text("utf-8")
    assert [name for name in COMMANDS if f"`thresher {name}" not in text] == []
    targets = re.findall(r"^([a-z-]+):.*?##", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert [target for target in targets if f"| `make {target}` |" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_show_only_commands_that_exist(page: Path) -> None:
    """Each `thresher ...` in a fenced block is a command, with options that it has."""
    for block in fenced(page, r"(?:sh|console|bash)"):
        for line in re.findall(r"^\s*(?:\$ )?(?:\S*/)?thresher (.+)$", block, re.M):
            name, *rest = line.split()
            assert name in TOP, line
            chosen = TOP[name]
            there = getattr(chosen, "commands", {})
            # A group may also do something by itself: `thresher jobs --status failed`.
            if there and rest and not rest[0].startswith("-"):
                assert rest[0] in there, line
                chosen = there[rest[0]]
            options = {option for parameter in chosen.params for option in parameter.opts}
            assert {word for word in rest if re.fullmatch(r"--[a-z]+", word)} <= options, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """Each relative link of a page names a file or directory that is there."""
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_pipelines_in_the_documentation_load(tmp_path: Path) -> None:
    """Each whole pipeline file shown in docs/modes.md passes the registry's check."""
    settings = Settings.load(data_dir=tmp_path, llm_provider="extractive")
    resources = Resources(settings)
    files = [block for block in fenced(DOCS / "modes.md", "yaml") if "components" in yaml.safe_load(block)]
    for number, block in enumerate(files):
        path = tmp_path / f"shown-{number}.yml"
        path.write_text(block, "utf-8")
        assert build(path, settings, resources).inputs["query"]
    resources.close()
    assert len(files) >= 2


def test_the_example_answer_has_every_field() -> None:
    """The whole answer shown in docs/http.md has the fields of an answer, and each citation's words at their place."""
    [block] = [block for block in fenced(DOCS / "http.md", "console") if '{"mode": "crag",\n' in block]
    fields = [name for name, field in QueryResponse.model_fields.items() if not field.exclude]
    assert re.findall(r'^[ {]"(\w+)": ', block, re.M) == fields
    [(quote, begin, end)] = re.findall(r'"quote": "(.*?)", "start": (\d+), "end": (\d+)', block)
    [text] = re.findall(r'"text": "(.*?)"', block)
    assert text[int(begin) : int(end)] == quote


def test_package_example_names_the_group_of_modes() -> None:
    """The entry point shown in docs/modes.md belongs to the group that the registry reads."""
    from registry import ENTRY_POINT_GROUP

    [block] = fenced(DOCS / "modes.md", "toml")
    assert ENTRY_POINT_GROUP in tomllib.loads(block)["project"]["entry-points"]
