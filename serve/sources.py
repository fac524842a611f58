"""Text files from the command line as documents."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIXES = (".md", ".markdown", ".rst", ".txt")
_HEADING = re.compile(r"^#\s+(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class SkippedFile:
    """A file that is no document, and why."""

    path: Path
    reason: str


def read_sources(paths: Iterable[Path]) -> tuple[list[dict[str, Any]], list[SkippedFile]]:
    """
    Read files, and the text files below directories.

    :param paths: files and directories.
    :returns: documents with `id` (the path below the directory that was named), `text`, `title` (the first heading of
        Markdown, else the file's name) and `meta`, and the files that could not be read as text, with the reason.
    """
    documents: list[dict[str, Any]] = []
    skipped: list[SkippedFile] = []
    for path, name in _files(paths):
        try:
            text = path.read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            skipped.append(SkippedFile(path, f"not UTF-8 text (byte {error.start})"))
            continue
        except OSError as error:
            skipped.append(SkippedFile(path, error.strerror or str(error)))
            continue
        if path.suffix.lower() not in SUFFIXES:
            skipped.append(SkippedFile(path, f"not a text file; these are read: {', '.join(SUFFIXES)}"))
        elif not text.strip():
            skipped.append(SkippedFile(path, "no text in it"))
        else:
            documents.append(
                {"id": name, "text": text, "title": _title(path, text), "meta": {"source": name}}
            )
    return documents, skipped


def _files(paths: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    for path in paths:
        if path.is_dir():
            root = path.resolve()
            for file in sorted(root.rglob("*")):
                if file.is_file() and file.suffix.lower() in SUFFIXES:
                    yield file, f"{root.name}/{file.relative_to(root).as_posix()}"
        else:
            yield path, path.name


def _title(path: Path, text: str) -> str:
    heading = _HEADING.search(text) if path.suffix.lower() in (".md", ".markdown") else None
    return heading.group(1).strip() if heading else path.name
