"""Tenants' document stores on Chroma, embedded in the process or on a server."""

from components.storing.documents import InvalidCursorError, TenantDocumentStore
from components.storing.errors import (
    DocumentStoreError,
    DocumentStoreUnavailableError,
    EmbeddingMismatchError,
    IndexMismatchError,
    InvalidTenantError,
    ReindexingError,
    SplittingMismatchError,
    UnknownDocumentError,
    UnknownTenantError,
)
from components.storing.generations import Generation
from components.storing.naming import TENANT_PATTERN, check_tenant_id
from components.storing.records import DocumentInfo, DocumentState
from components.storing.stores import TenantDocumentStores

__all__ = [
    "TENANT_PATTERN",
    "DocumentInfo",
    "DocumentState",
    "DocumentStoreError",
    "DocumentStoreUnavailableError",
    "EmbeddingMismatchError",
    "Generation",
    "IndexMismatchError",
    "InvalidCursorError",
    "InvalidTenantError",
    "ReindexingError",
    "SplittingMismatchError",
    "TenantDocumentStore",
    "TenantDocumentStores",
    "UnknownDocumentError",
    "UnknownTenantError",
    "check_tenant_id",
]
