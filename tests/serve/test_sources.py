"""Which files a command sends, under which names."""

import os
from pathlib import Path

import pytest

from serve.commands.ingest import say_what_was_left_out
from serve.commands.sources import FoundFiles, find_files, title_of


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {path.name}\n")


def names(found: FoundFiles) -> list[str]:
    return [file.name for file in found.files]


def test_files_of_one_name_stay_apart(here: Path) -> None:
    """Names are paths; where two files would get one name, the second is refused and both are named."""
    outside = here.parent / "there" / "docs" / "README.md"
    write(here / "a" / "README.md", here / "b" / "README.md", outside)
    write(here.parent / "elsewhere" / "docs" / "README.md")
    files = ["a/README.md", "./b/README.md", "a/../a/README.md", "../there/docs/README.md"]
    found = find_files([*files, "../there/docs", "../elsewhere/docs"])
    assert names(found) == ["a/README.md", "b/README.md", outside.as_posix().lstrip("/"), "docs/README.md"]
    [refused] = found.refused
    assert refused.path.parts[-3] == "elsewhere"
    assert refused.reason == f"has the same name as {outside}: 'docs/README.md'"


def test_what_a_folder_leaves_out_is_counted(here: Path) -> None:
    """Below a folder, hidden files and folders and kinds that are not read are left out, and counted by kind."""
    docs = here / "docs"
    write(docs / "a.md", docs / "sub" / "B.PDF", docs / "sub" / "c.txt", docs / ".hidden.md")
    write(docs / ".git" / "d.md", docs / "e.png", docs / "f.png", docs / "Makefile")
    found = find_files(["docs"])
    assert names(found) == ["docs/a.md", "docs/sub/B.PDF", "docs/sub/c.txt"]
    assert found.left_out == {
        "hidden file": 1,
        "hidden folder": 1,
        ".png file": 2,
        "file without an ending": 1,
    }
    assert found.refused == []


def test_links_are_not_followed_out_of_a_folder(here: Path) -> None:
    """A link inside the folder is read; one that leads out, a linked folder or a broken one is left out."""
    docs = here / "docs"
    write(docs / "a.md", here / "secret.md", here / "other" / "b.md")
    (docs / "inside.md").symlink_to(docs / "a.md")
    (docs / "outside.md").symlink_to(here / "secret.md")
    (docs / "broken.md").symlink_to(docs / "no.md")
    (docs / "round").symlink_to(docs)
    (docs / "away").symlink_to(here / "other")
    os.mkfifo(docs / "pipe.md")
    found = find_files(["docs"])
    assert names(found) == ["docs/a.md", "docs/inside.md"]
    assert found.left_out == {
        "link out of the folder": 1,
        "linked folder": 2,
        "broken or special file": 2,
    }
    assert names(find_files(["docs/**/*.md"])) == ["docs/a.md", "docs/inside.md"]
    assert names(find_files(["docs/outside.md"])) == ["docs/outside.md"]  # named, so it is meant


def test_patterns_are_read_as_a_shell_does(here: Path) -> None:
    """A pattern fits files at any depth, of any kind that it names, and hidden ones only when it says so."""
    docs = here / "docs"
    write(docs / "a.md", docs / "sub" / "deep" / "b.md", docs / "c.xyz", docs / ".d.md", docs / ".x" / "e.md")
    write(docs / "odd[1].md")
    assert names(find_files(["docs/**/*.md"])) == ["docs/a.md", "docs/odd[1].md", "docs/sub/deep/b.md"]
    assert names(find_files(["docs/*"])) == ["docs/a.md", "docs/c.xyz", "docs/odd[1].md"]
    assert names(find_files([str(docs / "sub/**")])) == ["docs/sub/deep/b.md"]
    assert names(find_files(["docs/.*.md"])) == ["docs/.d.md"]
    assert names(find_files(["docs/odd[1].md"])) == ["docs/odd[1].md"]
    assert [file.reason for file in find_files(["docs/*.doc"]).refused] == ["no file fits this pattern"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing.md", "does not exist"), ("pipe", "is no regular file"), (b"\xff.md", "its name is not UTF-8")],
)
def test_what_is_named_and_cannot_be_sent_is_refused(here: Path, name: str | bytes, reason: str) -> None:
    """A named file that is not there, or none, is refused with the reason."""
    os.mkfifo("pipe")
    path = os.fsdecode(name)
    if isinstance(name, bytes):
        Path(path).write_text("x")
    found = find_files([path])
    assert ([file.reason for file in found.refused], found.files) == ([reason], [])


@pytest.mark.parametrize(
    ("name", "text", "title"),
    [
        ("a.md", "Intro.\n\n# The guide { #guide }\n\n# Other\n", "The guide"),
        ("a.markdown", "# Use {x} so\n", "Use {x} so"),
        ("a.md", "#hashtag\n\n## Second level\n", "a.md"),
        ("a.txt", "# no heading in a text", "a.txt"),
        ("a.md", "# " + "x" * 2_000, "x" * 256),
    ],
)
def test_a_file_is_titled_by_its_first_heading(name: str, text: str, title: str) -> None:
    """Markdown has its first heading as title, without attributes and not endless; other files have their name."""
    assert title_of(Path("docs") / name, text.encode()) == title


def test_what_is_left_out_is_said_briefly(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of what is left out a few are named, and of many the most frequent kinds are counted."""
    write(here / "docs" / "a.png", here / "docs" / "Makefile")
    say_what_was_left_out(find_files(["docs"]))
    said = capsys.readouterr().err
    assert "1 .png file, 1 file without an ending" in said or "1 file without an ending, 1 .png file" in said
    assert str(here / "docs" / "a.png") in said
    write(*(here / "docs" / f"{number}.x{number}" for number in range(12)), here / "docs" / "b.png")
    say_what_was_left_out(find_files(["docs"]))
    said = capsys.readouterr().err
    assert said.startswith("left out below folders: 2 .png files, ")
    assert said.endswith(", 4 others\n")
