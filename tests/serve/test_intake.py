"""From a request's body to the sources of a job."""

import io

from serve.intake import files_intake
from serve.uploads import Upload, UploadedFile


def digest_of(name: str, content_type: str) -> str:
    """The digest of an upload of one file whose id `metadata` gives."""
    file = UploadedFile(name, content_type, "a" * 64, 1, io.BytesIO(b"x"))
    upload = Upload({"metadata": f'{{"{name}": {{"id": "doc"}}}}'}, [file])
    return files_intake(upload, "acme", "ingest").digest


def test_a_file_of_another_name_or_type_is_another_request() -> None:
    """Both decide how a file is read, so a repetition must have them, whatever its document is called."""
    first = digest_of("a.txt", "text/plain")
    assert digest_of("a.txt", "text/plain") == first
    assert digest_of("b.txt", "text/plain") != first
    assert digest_of("a.txt", "text/csv") != first
