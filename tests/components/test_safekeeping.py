"""Indexes whose files were being written when the process was killed."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from haystack import Document

from components.storing import DocumentStoreError, TenantDocumentStores


def write(folder: Path, *numbers: int) -> str:
    """Write chunks as a process of its own, and give the collection's id."""
    stores = TenantDocumentStores(path=folder)
    store = stores.get_or_create("acme")
    for number in numbers:
        meta = {"document_id": f"d{number}"}
        chunk = Document(id=f"c{number}", content=f"{number}", embedding=[1.0, number], meta=meta)
        store.write_documents([chunk])
    stores.close()
    return str(store.rows.id)


def found(folder: Path) -> set[str]:
    """Give the ids that a search finds."""
    stores = TenantDocumentStores(path=folder)
    try:
        return {chunk.id for chunk in stores.get("acme").search_embeddings([[1.0, 1.0]], 9)[0]}
    finally:
        stores.close()


def index_of(folder: Path) -> Path:
    """Give the directory of the one index."""
    return next(path.parent for path in folder.glob("*/index_metadata.pickle"))


def tear(folder: Path, stored: int) -> None:
    """Leave the files as a kill in the middle of a write does."""
    pickle = index_of(folder) / "index_metadata.pickle"
    pickle.write_bytes(pickle.read_bytes()[:20])
    with closing(sqlite3.connect(folder / "chroma.sqlite3")) as database, database:
        database.execute(
            "UPDATE max_seq_id SET seq_id = ? WHERE segment_id = ?", (stored, pickle.parent.name)
        )


def test_a_torn_index_is_put_back(tmp_path: Path) -> None:
    """The copy takes the place of the torn files, and what it lacks comes from Chroma's log."""
    collection = write(tmp_path, 1, 2)
    shutil.copytree(index_of(tmp_path), tmp_path / "before")
    write(tmp_path, 3)
    tear(tmp_path, stored=2)
    (tmp_path / "before").rename(tmp_path / "kept" / collection)
    assert found(tmp_path) == {"c1", "c2", "c3"}
    assert list((tmp_path / "kept").iterdir()) == []


def test_without_a_copy_a_torn_index_fails(tmp_path: Path) -> None:
    """That is what the copies are for."""
    write(tmp_path, 1, 2)
    tear(tmp_path, stored=1)
    with pytest.raises(DocumentStoreError, match="hnsw"):
        found(tmp_path)


def test_an_index_whose_first_write_was_torn_is_made_anew(tmp_path: Path) -> None:
    """A copy without files stands for an index that was not there: all of it comes from the log."""
    collection = write(tmp_path, 1)
    (tmp_path / "kept" / collection).mkdir()
    tear(tmp_path, stored=0)
    assert found(tmp_path) == {"c1"}


def test_a_finished_write_is_kept(tmp_path: Path) -> None:
    """A copy from before a write that Chroma has noted as stored is thrown away, and so is half a copy."""
    collection = write(tmp_path, 1)
    shutil.copytree(index_of(tmp_path), tmp_path / "kept" / collection)
    (tmp_path / "kept" / f"{collection}.tmp").mkdir()
    write(tmp_path, 2)
    assert found(tmp_path) == {"c1", "c2"}
    assert list((tmp_path / "kept").iterdir()) == []
