"""What every pipeline that `ModeRegistry` makes has, whatever it is for."""

from pathlib import Path
from typing import Literal

from modes.checking import CheckedPipeline

Origin = Literal["built-in", "directory", "package", "added"]


class NamedPipeline:
    """A checked pipeline with its name and the place where it was found."""

    def __init__(self, name: str, checked: CheckedPipeline, origin: Origin) -> None:
        """
        Wrap a checked pipeline.

        :param name: what callers ask for: the file's name without its ending.
        :param checked: the pipeline with its declared inputs and outputs.
        :param origin: where the file was found.
        """
        self.name = name
        self.description = checked.description
        self.path: Path = checked.path
        self.origin = origin
        self.inputs = list(checked.inputs)
        self.outputs = list(checked.outputs)
        self.pipeline = checked.pipeline
        self.checked = checked
