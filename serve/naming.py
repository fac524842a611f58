"""Which id a document has when its owner gave none: from its text, or from its file's name."""

import hashlib
import re
import unicodedata
from pathlib import PurePosixPath

LONGEST_ID = 512
_LONGEST_SUFFIX = 16

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DRIVE = re.compile(r"[A-Za-z]:")


def id_of_text(text_sha256: str) -> str:
    """
    Name a document after its text.

    :param text_sha256: SHA-256 of the text in UTF-8, as hex digits.
    :returns: the id: the same text has the same.
    """
    return text_sha256[:32]


def id_of_file(name: str) -> str:
    """
    Name a document after its file, so that a changed file of the same name replaces the one before.

    :param name: the name as it was sent; may be a path, of any system.
    :returns: the id: the path with `/`, without what leads out of a folder and without control characters, in Unicode's
        NFC; one of more than 512 characters is cut and has a hash before its suffix. Empty where nothing is left.
    """
    plain = unicodedata.normalize("NFC", _CONTROL.sub("", name)).replace("\\", "/")
    parts = [part.strip() for part in plain.split("/")]
    if parts and _DRIVE.fullmatch(parts[0]):
        parts = parts[1:]
    path = "/".join(part for part in parts if part not in ("", ".", ".."))
    if len(path) <= LONGEST_ID:
        return path
    suffix = PurePosixPath(path).suffix[:_LONGEST_SUFFIX]
    end = f"-{hashlib.sha256(path.encode('utf-8', 'replace')).hexdigest()[:32]}{suffix}"
    return path[: LONGEST_ID - len(end)] + end
