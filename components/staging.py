"""A stage: a pipeline in a file of its own, used as one component of a mode."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from haystack import Pipeline, SuperComponent, component, default_from_dict, default_to_dict

from components.events import stage


@dataclass(frozen=True)
class StagePipeline:
    """A pipeline with the names that its file declares."""

    pipeline: Pipeline
    inputs: dict[str, list[str]]
    """Public name → the sockets it feeds."""
    outputs: dict[str, str]
    """Public name → the socket it is read from."""


@component
class PipelineStage(SuperComponent):
    """
    Runs the pipeline of a YAML file as one component; the file's `inputs` and `outputs` are its sockets.

    In a mode's YAML:
    ```yaml
    retrieval:
      type: components.staging.PipelineStage
      init_parameters:
        file: stages/vector_search.yml
    ```
    """

    def __init__(self, file: str, load_stage: Callable[[str], StagePipeline]) -> None:
        """
        Build the stage.

        :param file: path of the YAML file, relative to the file that names it or to the built-in pipelines.
        :param load_stage: reads, checks and builds the file; given by the registry.
        """
        built = load_stage(file)
        self.file = file
        self.name = file.rsplit("/", 1)[-1].removesuffix(".yml")
        # `@component` makes the class anew, so `super()` without arguments would look for the old one.
        SuperComponent.__init__(
            self,
            pipeline=built.pipeline,
            input_mapping=built.inputs,
            output_mapping={socket: name for name, socket in built.outputs.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """
        Serialize to what stands in YAML.

        :returns: the type and `file`.
        """
        return default_to_dict(self, file=self.file)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "PipelineStage":
        """
        Make the stage from what stands in YAML.

        :param data: the type and `file`.
        :returns: the stage.
        """
        return default_from_dict(cls, data)

    def run(self, **kwargs: Any) -> dict[str, Any]:
        """
        Run the stage and report when it began and how long it took.

        :param kwargs: the inputs that the file declares.
        :returns: the outputs that the file declares.
        """
        with stage(self.name):
            return SuperComponent.run(self, **kwargs)

    async def run_async(self, **kwargs: Any) -> dict[str, Any]:
        """Run the stage; see `run`."""
        with stage(self.name):
            return await SuperComponent.run_async(self, **kwargs)
