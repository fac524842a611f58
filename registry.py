"""Modes by name: each a Haystack pipeline in a YAML file, found, checked and built once.

Usage example:
```python
from registry import ModeRegistry
from settings import Settings

with ModeRegistry(Settings.load()) as registry:
    result = registry["crag"].run(query="What is a mode?", tenant_id="demo")
    print(result.answer, result.strategy)
```
"""

import asyncio
import difflib
import importlib.metadata
import os
import threading
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from components.staging import StagePipeline
from modes.budgeting import fallback_faults, read_fallback
from modes.checking import CheckedPipeline, Fault, PipelineChecker, PipelineFileError
from modes.contracts import contract_faults
from modes.indexing import IndexingPipeline
from modes.kinds import kind_of
from modes.mode import Mode
from modes.named import Origin
from modes.plain import PlainPipeline
from modes.results import QueryResult
from modes.searching import Search
from resources import Resources
from settings import BUILTIN_PIPELINES, Settings

ENTRY_POINT_GROUP = "thresher.modes"
STANDALONE_STAGE = "stages/standalone_question.yml"
_SEARCH_STAGE = "stages/vector_search.yml"


class UnknownModeError(LookupError):
    """There is no mode of this name; the message lists those there are."""


class BrokenModeError(LookupError):
    """What has the name can't be used, for it has faults; the message lists them."""


class ModeRegistry(Mapping[str, Mode]):
    """
    Every mode there is, by name.

    Modes come from the built-in directory, from packages (entry points of the group `thresher.modes`, each a path of a
    YAML file or of a directory of them) and from `PIPELINES_DIR`; of one name, the last found counts. Files with
    faults are kept in `faults`, never skipped silently.
    """

    def __init__(self, settings: Settings, resources: Resources | None = None) -> None:
        """
        Find, check and build every mode. Models are loaded by `warm_up`, or with the first query.

        :param settings: the service's settings.
        :param resources: shared objects to use instead of those that the settings describe.
        """
        self.settings = settings
        self.resources = resources or Resources(settings)
        self.indexing: dict[str, IndexingPipeline] = {}
        self.plain: dict[str, PlainPipeline] = {}
        self.broken: dict[str, list[Fault]] = {}
        """By name: files that could not be loaded, and the wrappers of which the service says the same."""
        self.elsewhere: dict[str, str] = {}
        """What is no mode, by name: a sentence that says how it is called, for who takes it for one."""
        self._modes: dict[str, Mode] = {}
        self._astray: dict[str, CheckedPipeline] = {}
        self._loop = _LoopThread()
        self._standalone = self._stage(STANDALONE_STAGE, ("query", "history"), ("query",))
        self.search = Search(self._stage(_SEARCH_STAGE, ("query", "tenant_id"), ("documents",)))
        for path, origin in self._pipeline_files():
            self._load(path, origin)
        astray = {name: faults for name, mode in self._modes.items() if (faults := self.astray(mode.checked))}
        for name, faults in astray.items():
            self._astray[name] = self._modes[name].checked
            self._drop(name)
            self.broken[name] = faults

    @property
    def faults(self) -> list[Fault]:
        """Every fault of every file that could not be loaded."""
        return [fault for faults in self.broken.values() for fault in faults]

    def add(self, path: Path | str) -> Mode | IndexingPipeline | PlainPipeline:
        """
        Load one more mode or pipeline, in place of any of its name.

        :param path: the YAML file; its name without ending is the mode's.
        :returns: the mode, or the pipeline, which is in `indexing` or `plain` too.
        :raises PipelineFileError: with every fault of the file; what there was of its name stays.
        """
        entry = build(Path(path), self.settings, self.resources)
        if faults := self.astray(entry):
            raise PipelineFileError(faults)
        return self._register(entry, "added")

    def astray(self, entry: CheckedPipeline) -> list[Fault]:
        """
        Check whether a mode that names another one as its fallback can fall back on it.

        :param entry: the mode, or another pipeline, which has no fallback. It need not be one of the registry's.
        :returns: its faults. None if the fallback has faults of its own: those are told of already.
        """
        if kind_of(entry.content) != "mode":
            return []
        known = self._astray | {name: mode.checked for name, mode in self._modes.items()}
        if read_fallback(entry) in self.broken.keys() - known:
            return []
        return list(fallback_faults(entry, {**known, entry.path.stem: entry}))

    def warm_up(self) -> None:
        """Load every model that a mode or another pipeline uses."""
        entries: list[Mode | IndexingPipeline | PlainPipeline] = [
            *self._modes.values(),
            *self.indexing.values(),
            *self.plain.values(),
        ]
        for entry in entries:
            entry.pipeline.warm_up()
        self.search.pipeline.warm_up()
        self._standalone.pipeline.warm_up()

    def close(self) -> None:
        """Give back what the modes hold; they can't be run any more."""
        self._loop.close(self.resources.close_async())
        self.resources.close()

    def __enter__(self) -> Self:
        """Use the registry and close it at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the registry."""
        self.close()

    def __getitem__(self, name: str) -> Mode:
        """
        Give a mode.

        :param name: its name.
        :returns: the mode.
        :raises BrokenModeError: if its file has faults.
        :raises UnknownModeError: if there is none.
        """
        if name in self._modes:
            return self._modes[name]
        if name in self.broken:
            shown = "; ".join(fault.brief for fault in self.broken[name])
            raise BrokenModeError(f"'{name}' could not be loaded: {shown}")
        near = difflib.get_close_matches(name, self._modes, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        if name in self.elsewhere:
            hint = f" {self.elsewhere[name]}"
        raise UnknownModeError(f"there is no mode '{name}'; there are {', '.join(self._modes)}.{hint}")

    def __iter__(self) -> Iterator[str]:
        """Give the names of the modes that can be used."""
        return iter(self._modes)

    def __len__(self) -> int:
        """Count the modes that can be used."""
        return len(self._modes)

    def __contains__(self, name: object) -> bool:
        """Say whether a mode can be used."""
        return name in self._modes

    def _load(self, path: Path, origin: Origin) -> None:
        try:
            self._register(build(path, self.settings, self.resources), origin)
        except PipelineFileError as error:
            self._drop(path.stem)
            self.broken[path.stem] = error.faults

    def _stage(self, file: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> CheckedPipeline:
        """Load a stage that is run without a mode: that of `PIPELINES_DIR`, else, or if it has faults, the built-in."""
        for folder in (self.settings.pipelines_dir, BUILTIN_PIPELINES):
            path = folder / file if folder else None
            if path is None or not path.is_file():
                continue
            try:
                checked = build(path, self.settings, self.resources)
                if faults := [*_lacking(checked, "inputs", inputs), *_lacking(checked, "outputs", outputs)]:
                    raise PipelineFileError(faults)
                return checked
            except PipelineFileError as error:
                self.broken[file] = error.faults
        raise PipelineFileError(self.faults)

    def _pipeline_files(self) -> Iterator[tuple[Path, Origin]]:
        yield from ((path, "built-in") for path in _yaml_files(BUILTIN_PIPELINES))
        for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
            try:
                found = Path(entry_point.load())
            except Exception as error:  # a package may raise anything when it is imported
                message = f"the entry point '{entry_point.value}' can't be loaded: {error}"
                self.broken[entry_point.name] = [Fault(Path(entry_point.name), 1, message)]
                continue
            yield from ((path, "package") for path in ([found] if found.is_file() else _yaml_files(found)))
        if self.settings.pipelines_dir is not None:
            yield from ((path, "directory") for path in _yaml_files(self.settings.pipelines_dir))

    def _register(self, entry: CheckedPipeline, origin: Origin) -> Mode | IndexingPipeline | PlainPipeline:
        name, kind = entry.path.stem, kind_of(entry.content)
        self._drop(name)
        if kind == "mode":
            self._modes[name] = Mode(name, entry, origin, self._loop.run, self._standalone, self._modes)
            return self._modes[name]
        if kind == "indexing":
            self.indexing[name] = IndexingPipeline(name, entry, origin)
            return self.indexing[name]
        self.plain[name] = PlainPipeline(name, entry, origin)
        return self.plain[name]

    def _drop(self, name: str) -> None:
        known: list[dict[str, Any]] = [self._modes, self.indexing, self.plain, self.broken]
        for entries in known:
            entries.pop(name, None)


def build(path: Path, settings: Settings, resources: Resources) -> CheckedPipeline:
    """
    Check a pipeline file against the contract of its kind and build it.

    `modes.kinds` tells the kinds. What lies in a directory `stages` is a stage, which may have any inputs and outputs,
    as a plain pipeline may.

    :param path: the file.
    :param settings: where stages are looked for, and which modules may be used.
    :param resources: shared objects given to the components.
    :returns: the checked pipeline.
    :raises PipelineFileError: with every fault found.
    """
    return _build(Path(os.path.abspath(path)), settings, resources, ())


def _build(path: Path, settings: Settings, resources: Resources, within: tuple[Path, ...]) -> CheckedPipeline:
    def load_stage(file: str) -> StagePipeline:
        stage = _build(_find_stage(file, path, settings), settings, resources, (*within, path))
        return StagePipeline(stage.pipeline, stage.inputs, stage.outputs)

    if path in within:
        raise PipelineFileError([Fault(path, 1, "the stage uses itself")])
    shared = {**resources.by_parameter(), "load_stage": load_stage}
    checked = PipelineChecker(shared, settings.allowed_modules).build(path)
    if path.parent.name != "stages" and (faults := list(contract_faults(checked))):
        raise PipelineFileError(faults)
    return checked


def _find_stage(file: str, named_in: Path, settings: Settings) -> Path:
    folders = [named_in.parent, settings.pipelines_dir, BUILTIN_PIPELINES]
    for folder in folders:
        if folder is not None and (folder / file).is_file():
            return Path(os.path.abspath(folder / file))
    there = sorted(f"stages/{path.name}" for path in (BUILTIN_PIPELINES / "stages").glob("*.yml"))
    raise FileNotFoundError(f"there is no stage file '{file}'; the built-in ones are {', '.join(there)}")


def _lacking(checked: CheckedPipeline, side: str, needed: tuple[str, ...]) -> Iterator[Fault]:
    for name in needed:
        if name not in getattr(checked, side):
            message = f"this stage must have the {side[:-1]} '{name}', for it is run without a mode"
            yield Fault(checked.path, checked.lines[(side,)], message)


def _yaml_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.y*ml") if path.suffix in (".yml", ".yaml"))


class _LoopThread:
    """An event loop in a thread of its own, for callers that have none or can't await."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, QueryResult]) -> QueryResult:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="modes", daemon=True)
                self._thread.start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            last.close()
            return
        asyncio.run_coroutine_threadsafe(last, loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
