"""Model files: what they are, where they come from, and that they are what they should be."""

from components.weights.catalogue import (
    CATALOGUE,
    DEFAULT_LLM,
    SMALL_LLM,
    TOKENIZER,
    DiskSpaceError,
    HashMismatchError,
    MissingWeightsError,
    ModelFile,
    SourceError,
    UnknownModelError,
    WeightsError,
)
from components.weights.store import FileStatus, Source, WeightStore

__all__ = [
    "CATALOGUE",
    "DEFAULT_LLM",
    "SMALL_LLM",
    "TOKENIZER",
    "DiskSpaceError",
    "FileStatus",
    "HashMismatchError",
    "MissingWeightsError",
    "ModelFile",
    "Source",
    "SourceError",
    "UnknownModelError",
    "WeightStore",
    "WeightsError",
]
