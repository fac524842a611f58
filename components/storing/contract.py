"""What a collection says about how its chunks were made, and whether that fits what is in use."""

import json
from collections.abc import Mapping
from typing import Any

import chromadb

from components.storing.errors import EmbeddingMismatchError, SplittingMismatchError
from components.storing.store import DISTANCE

Splitting = Mapping[str, Any]

# When embedded Chroma drops an open index from its cache, it forgets what was not written to disk and finds it no more
# until the next write. So each write goes to disk at once, which costs little; a server drops none.
_WRITE_THROUGH = {"sync_threshold": 1, "batch_size": 1}


def new_collection(embedding_model: str, embedded: bool) -> dict[str, Any]:
    """
    Say how a new collection is to be made.

    :param embedding_model: name of the model in use.
    :param embedded: whether Chroma runs in the process.
    :returns: arguments of Chroma's `get_or_create_collection`.
    """
    index = {"space": DISTANCE, **(_WRITE_THROUGH if embedded else {})}
    return {
        "metadata": {"embedding_model": embedding_model},
        "configuration": {"hnsw": index},
        "embedding_function": None,
    }


def check_embedding(collection: chromadb.Collection, tenant_id: str, embedding_model: str) -> None:
    """
    Compare how a collection's chunks were embedded with how it is done now.

    :param collection: the collection.
    :param tenant_id: whose it is.
    :param embedding_model: name of the model in use.
    :raises EmbeddingMismatchError: if model or distance differ.
    """
    made_with = (collection.metadata or {}).get("embedding_model", embedding_model)
    if made_with != embedding_model:
        raise EmbeddingMismatchError(
            f"the documents of tenant '{tenant_id}' were embedded with '{made_with}', but the service now embeds with"
            f" '{embedding_model}': set the embedding model back, or run `thresher reindex --tenant {tenant_id}`"
        )
    distance = ((collection.configuration_json or {}).get("hnsw") or {}).get("space", DISTANCE)
    if distance != DISTANCE:
        raise EmbeddingMismatchError(
            f"the collection of tenant '{tenant_id}' measures distance by '{distance}', but the service by"
            f" '{DISTANCE}': run `thresher reindex --tenant {tenant_id}`"
        )


def check_dimension(collection: chromadb.Collection, tenant_id: str, dimension: int) -> None:
    """
    Compare the dimension of new embeddings with that of a collection.

    :param collection: the collection.
    :param tenant_id: whose it is.
    :param dimension: of the new ones.
    :raises EmbeddingMismatchError: if it differs.
    """
    held = collection._model.dimension
    if held is not None and held != dimension:
        raise EmbeddingMismatchError(
            f"the documents of tenant '{tenant_id}' have embeddings of {held} dimensions, but the embedding model now"
            f" gives {dimension}: set the embedding model back, or run `thresher reindex --tenant {tenant_id}`"
        )


def check_splitting(
    collection: chromadb.Collection, tenant_id: str, pipeline: str, splitting: Splitting
) -> bool:
    """
    Compare how a pipeline splits with how it split what a collection holds.

    :param collection: the collection.
    :param tenant_id: whose it is.
    :param pipeline: name of the indexing pipeline.
    :param splitting: the settings of its splitters, by component.
    :returns: whether the collection knows the pipeline already.
    :raises SplittingMismatchError: if it split otherwise.
    """
    recorded = recorded_splitting(collection)
    if pipeline not in recorded:
        return False
    then, now = _flat(recorded[pipeline]), _flat(splitting)
    changed = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
    if changed:
        differences = "; ".join(
            f"{key} was {_shown(then.get(key))} and is now {_shown(now.get(key))}" for key in changed
        )
        raise SplittingMismatchError(
            f"pipeline '{pipeline}' split the documents of tenant '{tenant_id}' in another way: {differences}. Set it"
            f" back, or run `thresher reindex --tenant {tenant_id}`"
        )
    return True


def recorded_splitting(collection: chromadb.Collection) -> dict[str, Splitting]:
    """
    Read which pipelines filled a collection, and how they split.

    :param collection: the collection.
    :returns: the settings of the splitters by pipeline.
    """
    return dict(json.loads((collection.metadata or {}).get("splitting", "{}")))


def record_splitting(collection: chromadb.Collection, pipeline: str, splitting: Splitting) -> None:
    """
    Note a pipeline that a collection does not know yet.

    :param collection: the collection, just opened.
    :param pipeline: name of the indexing pipeline.
    :param splitting: the settings of its splitters.
    """
    known = {**recorded_splitting(collection), pipeline: dict(splitting)}
    update_metadata(collection, splitting=json.dumps(known, sort_keys=True))


def update_metadata(collection: chromadb.Collection, **changes: Any) -> None:
    """
    Change some fields of a collection's metadata, all at once.

    :param collection: the collection, just opened, for Chroma replaces all of its metadata.
    :param changes: new values; None removes a field.
    """
    merged = {**(collection.metadata or {}), **changes}
    # The distance is part of the configuration, and Chroma refuses to be told it again.
    kept = {key: value for key, value in merged.items() if value is not None and key != "hnsw:space"}
    collection.modify(metadata=kept)


def write_through(collection: chromadb.Collection) -> None:
    """
    Let a collection of an older make write to disk at once, too.

    :param collection: the collection, before its index is first used.
    """
    if ((collection.configuration_json or {}).get("hnsw") or {}).get("sync_threshold", 1) != 1:
        collection.modify(configuration={"hnsw": _WRITE_THROUGH})


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {
        name: inner
        for key, part in value.items()
        for name, inner in _flat(part, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)
