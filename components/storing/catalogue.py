"""Which collections belong to a tenant, and which of them is in use."""

import threading
from contextlib import suppress
from typing import Any

import chromadb
from chromadb.errors import ChromaError, NotFoundError

from components.storing import contract
from components.storing.connecting import ChromaConnection
from components.storing.errors import UnknownTenantError, translated_errors
from components.storing.naming import check_tenant_id, generation_name

# Fields of the first collection's metadata that name others: the one in use, the one that is being filled for
# `thresher reindex`, and the one that is to be deleted.
_NAMES = ("active", "building", "retired")


class CollectionCatalogue:
    """
    Finds, makes and deletes tenants' collections; their names are the prefix and the tenant id, with what follows.

    The first collection of a tenant, which has no more than that in its name, says in its metadata which one is in use.
    """

    def __init__(self, connection: ChromaConnection, prefix: str, embedding_model: str) -> None:
        """
        Remember where the collections are; nothing is opened yet.

        :param connection: the connection to Chroma.
        :param prefix: what a collection's name begins with.
        :param embedding_model: name kept with each new collection.
        """
        self._connection = connection
        self._prefix = prefix
        self._embedding_model = embedding_model
        # Held by who reads what a collection says and then changes it, as Chroma replaces all of it.
        self.changing = threading.RLock()

    def first_name(self, tenant_id: str) -> str:
        """
        Name a tenant's first collection.

        :param tenant_id: the tenant.
        :returns: the name.
        :raises InvalidTenantError: if the id has a wrong form.
        """
        return self._prefix + check_tenant_id(tenant_id)

    def first(self, tenant_id: str) -> chromadb.Collection | None:
        """
        Look up a tenant's first collection.

        :param tenant_id: the tenant.
        :returns: the collection as it is now; None when there is none.
        """
        name = self.first_name(tenant_id)
        found = self.get(name)
        if found is None and (waiting := self.get(_successor(name))) is not None:
            # `empty_first` was interrupted, or is at it in another process.
            with suppress(ChromaError):
                waiting.modify(name=name)
            found = self.get(name)
        return found

    def in_use(self, tenant_id: str) -> chromadb.Collection | None:
        """
        Look up the collection in use of a tenant.

        :param tenant_id: the tenant.
        :returns: the collection as it is now; None when there is none.
        """
        first = self.first(tenant_id)
        active = (first.metadata or {}).get("active") if first else None
        return self.get(active) if active else first

    def get(self, name: str) -> chromadb.Collection | None:
        """
        Look up a collection.

        :param name: its name.
        :returns: the collection as it is now; None when there is none.
        """
        with translated_errors():
            try:
                return self._connection.client().get_collection(name, embedding_function=None)
            except NotFoundError:
                return None

    def there(self, name: str) -> chromadb.Collection:
        """
        Look up a collection that should be there.

        :param name: its name.
        :returns: the collection as it is now.
        :raises UnknownTenantError: if it is not there.
        """
        found = self.get(name)
        if found is None:
            raise UnknownTenantError("the tenant's collection is gone; ingest its documents again")
        return found

    def create(self, name: str) -> chromadb.Collection:
        """
        Make a collection, or look it up where it is.

        :param name: its name.
        :returns: the collection.
        """
        made = contract.new_collection(self._embedding_model, self._connection.embedded)
        with translated_errors():
            # Atomic in Chroma, unlike listing and then creating.
            return self._connection.client().get_or_create_collection(name, **made)

    def create_first(self, tenant_id: str) -> chromadb.Collection:
        """
        Make the collection of a tenant that has none in use.

        :param tenant_id: the tenant.
        :returns: the collection.
        """
        if self.first(tenant_id) is not None and self.in_use(tenant_id) is None:
            # `drop` was interrupted: what is left names a collection that is gone.
            self.drop(tenant_id)
        return self.create(self.first_name(tenant_id))

    def update(self, name: str, **changes: Any) -> None:
        """
        Change some fields of what a collection says.

        :param name: its name.
        :param changes: new values; None removes a field.
        :raises UnknownTenantError: if it is not there.
        """
        with self.changing, translated_errors():
            contract.update_metadata(self.there(name), **changes)

    def record_splitting(self, name: str, pipeline: str, splitting: contract.Splitting) -> None:
        """
        Note a pipeline that a collection does not know yet.

        :param name: its name.
        :param pipeline: name of the indexing pipeline.
        :param splitting: the settings of its splitters.
        :raises UnknownTenantError: if it is not there.
        """
        with self.changing, translated_errors():
            contract.record_splitting(self.there(name), pipeline, splitting)

    def delete(self, name: str) -> None:
        """
        Delete a collection; one that is not there is no error.

        :param name: its name.
        """
        with translated_errors(), suppress(NotFoundError):
            self._connection.client().delete_collection(name)

    def drop(self, tenant_id: str) -> bool:
        """
        Delete all collections of a tenant.

        :param tenant_id: the tenant.
        :returns: whether there were any.
        """
        first = self.first(tenant_id)
        if first is None:
            return False
        told = first.metadata or {}
        others = {str(told.get(key, first.name)) for key in _NAMES} - {first.name}
        # Generations that were begun and never came into use; the next one may be begun just now.
        others |= {
            generation_name(first.name, number + 1) for number in range(int(told.get("generation", 0)) + 1)
        }
        # The first one goes last: while it is there, the others can be found and this can be repeated.
        for name in [*others, _successor(first.name), first.name]:
            self.delete(name)
        return True

    def empty_first(self, tenant_id: str) -> None:
        """
        Delete the rows of a first collection that is not in use, without deleting what it says.

        An empty collection that says the same takes its name, which also frees the disk, and at once. Whoever looks
        between the two steps finds the new one by its other name.

        :param tenant_id: whose it is.
        """
        name = self.first_name(tenant_id)
        with self.changing, translated_errors():
            first = self.there(name)
            told: dict[str, Any] = {**(first.metadata or {}), "retired": _predecessor(name)}
            successor = self.create(_successor(name))
            contract.update_metadata(successor, **told)
            first.modify(name=_predecessor(name))
            with suppress(ChromaError):
                # Somebody who looked in this moment has done it.
                successor.modify(name=name)
        self.delete(_predecessor(name))


def _successor(name: str) -> str:
    return f"{name}.new"


def _predecessor(name: str) -> str:
    return f"{name}.old"
