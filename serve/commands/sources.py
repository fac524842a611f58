"""Which files a command was given: single ones, those below folders, those that a pattern fits."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from components.converting.kinds import KINDS
from serve.naming import id_of_file

# Below a folder only these are taken; a file that is named is sent whatever its name, and judged by its content.
SUFFIXES = frozenset(suffix for kind in KINDS.values() for suffix in kind.suffixes)

# Without attributes at its end, as in `# Testing { #testing }`.
_HEADING = re.compile(r"^#[ \t]+(\S.*?)[ \t]*(?:\{[^{}\n]*\})?[ \t]*$", re.MULTILINE)
# Of what is left out, so many are named.
FEW = 5
_TITLE_BYTES = 64 * 1024
_TITLE_CHARS = 256


@dataclass(frozen=True)
class SourceFile:
    """A file to send: where it is, and the name that its document is known by."""

    path: Path
    name: str
    size: int


@dataclass(frozen=True)
class RefusedFile:
    """A file that was meant but can't be sent, and why."""

    path: Path
    reason: str


@dataclass
class FoundFiles:
    """What there is to send, what can't be sent, and how many files below folders were left out for which reason."""

    files: list[SourceFile] = field(default_factory=list)
    refused: list[RefusedFile] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    left_out_first: list[Path] = field(default_factory=list)
    """The first few of those left out."""

    def leave_out(self, path: Path, reason: str) -> None:
        """
        Count what is left out.

        :param path: the file or folder.
        :param reason: what it is, in the singular.
        """
        self.left_out[reason] += 1
        if len(self.left_out_first) < FEW:
            self.left_out_first.append(path)


def find_files(paths: Iterable[str | Path]) -> FoundFiles:
    """
    Find the files that are named, those below folders, and those that patterns such as `docs/**/*.md` fit.

    Below a folder, hidden files, links that lead out of the folder and files of other kinds are left out and counted.
    The name of a file is its path below the working directory, else its whole path; that of a file below a folder is
    the folder's name and the path below it.

    :param paths: files, folders and patterns.
    :returns: the files, in the order of `paths` and by name below a folder.
    """
    found = FoundFiles()
    taken: dict[str, Path] = {}
    for path in map(Path, paths):
        for file, name in _named(path, found):
            _take(found, taken, file, name)
    return found


def _named(path: Path, found: FoundFiles) -> Iterator[tuple[Path, str]]:
    """Give the files that one argument stands for, with their names."""
    if path.is_dir():
        root = path.resolve()
        for file in _below(root, found):
            yield file, f"{root.name}/{file.relative_to(root).as_posix()}"
    elif os.path.lexists(path) or not glob.has_magic(str(path)):
        yield path, _path_below_here(path)
    else:
        files = [file for file in _fitting(path) if not file.is_dir()]
        if not files:
            found.refused.append(RefusedFile(path, "no file fits this pattern"))
        for file in files:
            yield file, _path_below_here(file)


def title_of(path: Path, content: bytes) -> str:
    """
    Give the title of a file: the first heading of Markdown, else its name.

    :param path: the file.
    :param content: what is in it.
    :returns: the title.
    """
    begin = content[:_TITLE_BYTES].decode("utf-8", "ignore")
    heading = _HEADING.search(begin) if path.suffix.lower() in KINDS["markdown"].suffixes else None
    return (heading.group(1).strip() if heading else path.name)[:_TITLE_CHARS]


def _take(found: FoundFiles, taken: dict[str, Path], path: Path, name: str) -> None:
    """Take a file under its name, once, or say why it can't be."""
    try:
        name.encode("utf-8")
        if not path.is_file():
            raise OSError(0, "is no regular file" if path.exists() else "does not exist")
        with path.open("rb"):
            size = path.stat().st_size
    except UnicodeEncodeError:
        found.refused.append(RefusedFile(path, "its name is not UTF-8"))
        return
    except OSError as error:
        found.refused.append(RefusedFile(path, error.strerror or str(error)))
        return
    name = id_of_file(name)
    first = taken.setdefault(name, path)
    if first is path:
        found.files.append(SourceFile(path, name, size))
    elif first.resolve() != path.resolve():  # the same file named twice is no mistake
        found.refused.append(RefusedFile(path, f"has the same name as {first}: '{name}'"))


def _below(root: Path, found: FoundFiles) -> Iterator[Path]:
    """Give the files below a folder that are worth sending, by name; count the others."""

    def unreadable(error: OSError) -> None:
        found.refused.append(RefusedFile(Path(error.filename), error.strerror or str(error)))

    for folder, folders, names in os.walk(root, onerror=unreadable):
        for name in folders:
            if name.startswith("."):
                found.leave_out(Path(folder, name), "hidden folder")
            elif os.path.islink(os.path.join(folder, name)):
                found.leave_out(Path(folder, name), "linked folder")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if reason := _unwanted(path, root):
                found.leave_out(path, reason)
            else:
                yield path


def _unwanted(path: Path, root: Path) -> str:
    """Say what kind of file below a folder is left out; empty for one that is not."""
    if path.name.startswith("."):
        return "hidden file"
    if path.suffix.lower() not in SUFFIXES:
        return f"{path.suffix.lower()} file" if path.suffix else "file without an ending"
    if path.is_symlink() and not path.resolve().is_relative_to(root):
        return "link out of the folder"
    return "" if path.is_file() else "broken or special file"


def _fitting(pattern: Path) -> list[Path]:
    """Give what a pattern fits, in the manner of a shell: nothing hidden, and no links out of where it begins."""
    magic = next(place for place, part in enumerate(pattern.parts) if glob.has_magic(part))
    root = Path(*pattern.parts[:magic])
    rest = [*pattern.parts[magic:], *(["*"] if pattern.name == "**" else [])]
    inside = root.resolve()
    dots = any(part.startswith(".") for part in rest)
    return sorted(
        path
        for path in root.glob("/".join(rest))
        if (dots or not any(part.startswith(".") for part in path.relative_to(root).parts))
        and path.resolve().is_relative_to(inside)
    )


def _path_below_here(path: Path) -> str:
    whole, here = Path(os.path.abspath(path)), Path.cwd()
    return (whole.relative_to(here) if whole.is_relative_to(here) else whole).as_posix()
