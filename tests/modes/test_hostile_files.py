"""Pipeline files that want to run code, read files or use up the machine: each is refused, and does nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from haystack import Document
from jinja2.exceptions import SecurityError

from registry import ModeRegistry
from settings import Settings

SOUND = """\
components:
  retrieval:
    type: components.staging.PipelineStage
    init_parameters: {file: stages/vector_search.yml}
  prompt:
    type: haystack.components.builders.prompt_builder.PromptBuilder
    init_parameters: {template: "{{ documents | length }} TEMPLATE"}
connections:
  - {sender: retrieval.documents, receiver: prompt.documents}
inputs:
  query: retrieval.query
  tenant_id: retrieval.tenant_id
outputs:
  answer: prompt.prompt
metadata:
  description: Counts what is found.
"""
COMMAND = "touch {marker}"
CODE = "__import__('pathlib').Path('{marker}').touch()"
ADAPTER = "haystack.components.converters.output_adapter.OutputAdapter"
ROUTER = "haystack.components.routers.conditional_router.ConditionalRouter"
OPENAI = "haystack.components.generators.chat.openai.OpenAIChatGenerator"
TOOL = "haystack.tools.tool.Tool"
PARAMETERS = (
    '{{name: t, description: d, parameters: {{type: object, properties: {{}}}}, function: "{function}"}}'
)


def component(kind: str, parameters: str = "{}") -> str:
    """A sound file with one more component."""
    added = f"components:\n  added:\n    type: {kind}\n    init_parameters: {parameters}\n"
    return SOUND.replace("components:\n", added, 1)


def tagged(value: str) -> str:
    """A sound file with one more value, which YAML itself may turn into a Python object."""
    return SOUND.replace("  description: Counts", f"  tagged: {value}\n  description: Counts")


HOSTILE = {
    "apply": tagged(f"!!python/object/apply:os.system ['{COMMAND}']"),
    "new": tagged("!!python/object/new:subprocess.Popen [[touch, '{marker}']]"),
    "object": tagged("!!python/object:pathlib.Path {}"),
    "name": tagged("!!python/name:os.system"),
    "module": tagged("!!python/module:antigravity"),
    "tuple": tagged("!!python/tuple [1, 2]"),
    "own_tag": tagged("!include /etc/passwd"),
    "system": component("os.system", f"{{command: '{COMMAND}'}}"),
    "popen": component("subprocess.Popen", "{args: [touch, '{marker}']}"),
    "eval": component("builtins.eval", f'{{source: "{CODE}"}}'),
    "exec": component("builtins.exec", f'{{source: "{CODE}"}}'),
    "importing": component("importlib.import_module", "{name: antigravity}"),
    "module_only": component("antigravity"),
    "relative": component("..os.system"),
    "no_component": component("pathlib.Path"),
    "borrowed": component("components.weights.store.Path", "{}"),
    "function": component("components.storing.check_tenant_id", "{tenant_id: a}"),
    "tests_code": component("tests.cluster.Cluster"),
    "service": component("serve.service.Service"),
    "filter": component(
        ADAPTER,
        f"{{template: '{{{{ \"{COMMAND}\" | run }}}}', output_type: str, custom_filters: {{run: os.system}}}}",
    ),
    "eval_filter": component(
        ADAPTER, "{template: '{{ x | run }}', output_type: str, custom_filters: {run: builtins.eval}}"
    ),
    "unsafe_adapter": component(ADAPTER, "{template: '{{ x }}', output_type: str, unsafe: true}"),
    "unsafe_router": component(
        ROUTER,
        "{routes: [{condition: '{{ true }}', output: '{{ x }}', output_name: a, output_type: str}], unsafe: true}",
    ),
    "callback": component(OPENAI, "{streaming_callback: os.system}"),
    "tool": component(
        OPENAI, f"{{tools: [{{type: {TOOL}, data: {PARAMETERS.format(function='os.system')}}}]}}"
    ),
    "nested": component(
        "haystack.core.super_component.super_component.SuperComponent",
        "{pipeline: {components: {a: {type: os.system, init_parameters: {}}}, connections: []}}",
    ),
    "nested_store": component(
        "haystack.components.writers.document_writer.DocumentWriter",
        "{document_store: {type: os.system, init_parameters: {}}}",
    ),
    "up_and_away": component("components.staging.PipelineStage", "{file: ../../../../../../etc/passwd}"),
    "absolute": component("components.staging.PipelineStage", "{file: /etc/passwd}"),
    "itself": component("components.staging.PipelineStage", "{file: itself.yml}"),
    "laughs": "\n".join(
        [
            "a0: &a0 [x, x, x, x, x, x, x, x, x]",
            *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)),
            SOUND,
        ]
    ),
    "deep": "components: " + "[" * 2_000 + "]" * 2_000 + "\n",
    "endless": "components: &a\n  again: *a\n",
    "digits": tagged("9" * 5_000).replace("components:", "components: 1" + "0" * 5_000 + "\nother:", 1),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `modes` has every hostile file, a sound one, and one whose template is hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "modes").mkdir()
    template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    files = {**HOSTILE, "sound": SOUND, "template": SOUND.replace("TEMPLATE", template)}
    for name, text in files.items():
        (folder / "modes" / f"{name}.yml").write_text(
            text.replace("{marker}", str(folder / "marker")), "utf-8"
        )
    return folder


@pytest.fixture(scope="module")
def registry(folder: Path) -> Iterator[ModeRegistry]:
    options = {"data_dir": folder / "data", "pipelines_dir": folder / "modes"}
    with ModeRegistry(Settings.load(llm_provider="extractive", **options)) as made:
        made.indexing["ingest"].run(
            "acme", [Document(content="A text.", meta={"document_id": "d", "title": ""})]
        )
        yield made


def test_no_hostile_file_is_loaded_or_does_anything(registry: ModeRegistry, folder: Path) -> None:
    """Each hostile file is refused with its faults, the sound one beside them loads, and no code has run."""
    assert [name for name in HOSTILE if name in registry or not registry.broken.get(name)] == []
    assert registry["sound"].run(query="x", tenant_id="acme").answer.startswith("1 ")
    assert not (folder / "marker").exists()
    assert len(HOSTILE) >= 20


def test_a_template_reaches_no_further_than_its_values(registry: ModeRegistry) -> None:
    """A template that looks for Python's inner parts ends in an error when it is filled, and gives nothing."""
    with pytest.raises(SecurityError):
        registry["template"].run(query="x", tenant_id="acme")
