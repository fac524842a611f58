"""The commands `thresher modes` and `thresher check`."""

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from serve.commands.terminal import err, out, plain_errors, quiet_settings

if TYPE_CHECKING:
    from resources import Resources
    from settings import Settings

Checked = tuple[Path, str | None, list[str]]
"""What was checked, its kind if it has no fault, and its faults."""
_STAGE = "a stage"
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
            _print_faults(str(fault) for fault in sorted(registry.faults))


def check(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Pipeline files, directories of wrappers, and directories such as PIPELINES_DIR."
        ),
    ],
) -> None:
    """Check pipeline files as the registry does: prints every fault as `file:line: what`, exits 1 if there is one."""
    with plain_errors():
        from resources import Resources

        settings = quiet_settings()
        resources = Resources(settings)
        checked = [item for file in files for item in _checked(file, settings, resources)]
        resources.close()
        for path, kind, _ in checked:
            if kind:
                out.print(f"{path}: {kind}", highlight=False, soft_wrap=True)
        faults = dict.fromkeys(fault for _, _, found in checked for fault in found)
        if not faults:
            out.print(f"{len(checked)} file{'s' if len(checked) != 1 else ''}: no fault")
        _print_faults(faults)


def _checked(file: Path, settings: "Settings", resources: "Resources") -> Iterator[Checked]:
    if not file.is_dir():
        yield _check_file(file, settings, resources)
    elif _is_wrapper(file):
        yield _check_wrapper(file)
    else:
        yield from _check_folder(file, settings, resources)


def _is_wrapper(directory: Path) -> bool:
    """Tell a wrapper, with a slip in its file's name maybe, from a directory that holds pipelines."""
    if (directory / "pipeline_wrapper.py").is_file():
        return True
    return any(directory.glob("*.py")) and not [
        *directory.glob("*.y*ml"),
        *directory.glob("*/pipeline_wrapper.py"),
    ]


def _check_folder(folder: Path, settings: "Settings", resources: "Resources") -> Iterator[Checked]:
    """Check all that `PIPELINES_DIR` would serve of a directory, stages included."""
    from serve.hayhooks_door.loading import wrapper_directories
    from settings import BUILTIN_PIPELINES

    settings = settings.model_copy(update={"pipelines_dir": folder})
    own = [path for path in sorted(folder.rglob("*.y*ml")) if path.parent in (folder, folder / "stages")]
    wrappers = list(wrapper_directories(folder))
    if not own and not wrappers:
        message = (
            "there is nothing to check: no pipeline file (*.yml, *.yaml), and no directory with a wrapper"
        )
        yield folder, None, [f"{folder}: {message} (pipeline_wrapper.py)"]
        return
    taken = {path.stem for path in BUILTIN_PIPELINES.glob("*.yml")}
    for path in own:
        checked = _check_file(path, settings, resources)
        yield checked
        # Neither has a route, so a wrapper may have its name.
        if checked[1] not in (_STAGE, _KINDS["indexing"]):
            taken.add(path.stem)
    for path in wrappers:
        yield _check_wrapper(path, taken, settings.pipeline_wrappers)


def _check_file(file: Path, settings: "Settings", resources: "Resources") -> Checked:
    from modes.checking import PipelineFileError
    from modes.kinds import kind_of
    from registry import ModeRegistry, build

    try:
        checked = build(file, settings, resources)
        if checked.content.get("metadata", {}).get("fallback") and (
            faults := ModeRegistry(settings, resources).astray(checked)
        ):
            raise PipelineFileError(faults)
    except PipelineFileError as error:
        return file, None, [str(fault) for fault in error.faults]
    return file, _STAGE if checked.path.parent.name == "stages" else _KINDS[kind_of(checked.content)], []


def _check_wrapper(directory: Path, taken: Collection[str] = (), allowed: bool = True) -> Checked:
    from serve.hayhooks_door.loading import WrapperFaultError, load

    try:
        load(Path(os.path.abspath(directory)), taken, allowed)
    except WrapperFaultError as error:
        return directory, None, [str(error)]
    return directory, "a wrapper", []


def _wrappers(settings: "Settings") -> list[Path]:
    """Find the directories with wrappers; their code is not run for a list."""
    folder = settings.pipelines_dir
    if folder is None or not any(folder.glob("*/*.py")):
        return []
    from serve.hayhooks_door.loading import wrapper_directories

    return list(wrapper_directories(folder))


def _print_faults(faults: Iterable[str]) -> None:
    shown = list(faults)
    for fault in shown:
        err.print(fault, style="red", markup=False, highlight=False, soft_wrap=True)
    if shown:
        raise typer.Exit(1)
