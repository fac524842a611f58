"""What a document is called that was given no id."""

import pytest

from serve.naming import LONGEST_ID, id_of_file


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("policy.md", "policy.md"),
        ("handbook/2026/policy.md", "handbook/2026/policy.md"),
        ("handbook\\policy.md", "handbook/policy.md"),
        ("C:\\Users\\me\\policy.md", "Users/me/policy.md"),
        ("/etc/passwd", "etc/passwd"),
        ("../../etc/passwd", "etc/passwd"),
        ("a/./b//../c.md", "a/b/c.md"),
        (" notes .md ", "notes .md"),
        ("a\x00b\r\nc\u2028.txt", "abc.txt"),
        ("cafe\u0301.md", "caf\u00e9.md"),
        ("..", ""),
        ("", ""),
    ],
)
def test_a_file_gives_its_document_a_harmless_id(name: str, expected: str) -> None:
    """A file's name becomes a relative path without control characters, the same from every system."""
    assert id_of_file(name) == expected


def test_long_names_are_cut_and_stay_apart() -> None:
    """Names over the limit keep their suffix and differ when only their ends differ."""
    first, second = (id_of_file("x" * 600 + end + ".pdf") for end in ("1", "2"))
    assert first != second
    assert len(first) == len(second) == LONGEST_ID
    assert first.endswith(".pdf")
