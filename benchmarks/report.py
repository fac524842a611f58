"""Tables for people, JSON for programs."""

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("haystack-ai", "chromadb", "fastapi", "hayhooks", "uvicorn")

console = Console()
if not console.is_terminal:
    # A table in a file is cut at 80 characters otherwise.
    console.width = 200


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """
    Print a table.

    :param title: what it says.
    :param rows: its rows; the first one's keys are the columns.
    """
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*map(_shown, row.values()))
    console.print(table)


def save(name: str, rows: list[dict[str, Any]], **about: Any) -> Path:
    """
    Write results as JSON, with what they were measured on.

    :param name: the file's name without its ending.
    :param rows: the results.
    :param about: what else belongs to them.
    :returns: the file.
    """
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    measured_on = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": {package: version(package) for package in _PACKAGES},
    }
    file.write_text(json.dumps({**about, "measured_on": measured_on, "rows": rows}, indent=1) + "\n")
    return file


def aim(value: float, most: float | None = None, least: float | None = None) -> str:
    """
    Say whether a value is where it should be.

    :param value: the value.
    :param most: the largest value that is good.
    :param least: the smallest value that is good.
    :returns: the aim, and whether it is met.
    """
    met = (most is None or value <= most) and (least is None or value >= least)
    wanted = f"≤ {most:g}" if most is not None else f"≥ {least:g}"
    return f"{wanted} {'met' if met else 'MISSED'}"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 100 else f"{value:.2f}"
    return str(value)
