"""The commands `thresher modes` and `thresher check`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from serve.commands.terminal import err, out, plain_errors, quiet_settings

if TYPE_CHECKING:
    from modes.checking import Fault
    from resources import Resources
    from settings import Settings

_KINDS = {"mode": "a mode", "indexing": "an indexing pipeline", "pipeline": "a plain pipeline"}


def modes() -> None:
    """List the modes, and what else `PIPELINES_DIR` brings."""
    with plain_errors():
        from registry import ModeRegistry

        settings = quiet_settings()
        with ModeRegistry(settings) as registry:
            table = Table("mode", "from", "what it does")
            for mode in registry.values():
                table.add_row(mode.name, mode.origin, mode.description)
            out.print(table)
            others = Table("pipeline", "kind", "what it does")
            for pipeline in registry.plain.values():
                others.add_row(pipeline.name, "pipeline", pipeline.description)
            for path in _wrappers(settings):
                others.add_row(
                    path.name, "wrapper", f"loaded by the service; `thresher check {path}` tries it"
                )
            if others.row_count:
                out.print(others)
            _print_faults(registry.faults)


def check(
    files: Annotated[list[Path], typer.Argument(help="Pipeline files, and directories of wrappers.")],
) -> None:
    """Check pipeline files as the registry does: prints every fault as `file:line: what`, exits 1 if there is one."""
    with plain_errors():
        from resources import Resources

        settings = quiet_settings()
        resources = Resources(settings)
        faults = []
        for file in files:
            found = _wrapper_faults(file) if file.is_dir() else _file_faults(file, settings, resources)
            faults.extend(found)
        resources.close()
        if not faults:
            out.print(f"{len(files)} file{'s' if len(files) != 1 else ''}: no fault")
        _print_faults(faults)


def _file_faults(file: Path, settings: "Settings", resources: "Resources") -> "list[Fault]":
    from modes.checking import PipelineFileError
    from modes.kinds import kind_of
    from registry import build

    try:
        checked = build(file, settings, resources)
    except PipelineFileError as error:
        return error.faults
    kind = "a stage" if checked.path.parent.name == "stages" else _KINDS[kind_of(checked.content)]
    out.print(f"{file}: {kind}", highlight=False, soft_wrap=True)
    return []


def _wrapper_faults(directory: Path) -> "list[Fault]":
    from serve.hayhooks_door.loading import WrapperFaultError, load

    try:
        load(Path(os.path.abspath(directory)))
    except WrapperFaultError as error:
        return [error.fault]
    out.print(f"{directory}: a wrapper", highlight=False, soft_wrap=True)
    return []


def _wrappers(settings: "Settings") -> list[Path]:
    """Find the directories with wrappers; their code is not run for a list."""
    folder = settings.pipelines_dir
    if folder is None or not any(folder.glob("*/*.py")):
        return []
    from serve.hayhooks_door.loading import wrapper_directories

    return list(wrapper_directories(folder))


def _print_faults(faults: "list[Fault]") -> None:
    for fault in sorted(faults):
        err.print(str(fault), style="red", markup=False, highlight=False, soft_wrap=True)
    if faults:
        raise typer.Exit(1)
