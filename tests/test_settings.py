"""Settings: where they come from and what is said of wrong ones."""

from pathlib import Path

import pytest

from settings import Settings, SettingsError


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_environment_wins_over_dotenv_wins_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The three sources have their order."""
    (tmp_path / ".env").write_text("PORT=1111\nDEFAULT_MODEL=from-file\n")
    monkeypatch.setenv("PORT", "2222")
    settings = Settings.load()
    assert (settings.port, settings.default_model, settings.collection_prefix) == (
        2222,
        "from-file",
        "tenant_",
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("LLM_PROVIDER", "magic"),
        ("LOG_LEVEL", "LOUD"),
        ("OLLAMA_URL", "localhost:11434"),
        ("COLLECTION_PREFIX", "a/b"),
        ("TOP_K", "0"),
        ("PIPELINES_DIR", "no/such/directory"),
        ("LLM_GGUF_PATH", "no/such/file.gguf"),
    ],
)
def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """The message names the variable and what it means."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"{variable}: "):
        Settings.load()


def test_a_secret_is_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an error nor the settings' own text shows a key."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("PORT", "sk-canary")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert "canary" not in str(caught.value)
    monkeypatch.delenv("PORT")
    assert "canary" not in repr(Settings.load())


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names in a list are separated by commas; blanks and empty ones do not count."""
    monkeypatch.setenv("ALLOWED_MODELS", "a, b,,c:1b ")
    assert Settings.load().allowed_models == ("a", "b", "c:1b")


def test_openai_needs_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that can't be reached without a URL asks for it."""
    monkeypatch.setenv("LLM_PROVIDER", "openai")
    with pytest.raises(SettingsError, match="OPENAI_BASE_URL must be set"):
        Settings.load()


def test_empty_values_are_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable, as a template leaves it, is no value."""
    for variable in ("CHROMA_HOST", "OLLAMA_URL", "PIPELINES_DIR", "OPENAI_API_KEY"):
        monkeypatch.setenv(variable, "")
    settings = Settings.load()
    assert (settings.chroma_host, settings.ollama_url, settings.pipelines_dir, settings.openai_api_key) == (
        None,
    ) * 4


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)]
)
def test_loopback_is_known(host: str, loopback: bool) -> None:
    """The service knows whether others can reach it."""
    assert Settings.load(host=host).bound_to_loopback is loopback


@pytest.mark.parametrize("wrong", ["https://rag.example.com", "rag.example.com:8000", "rag.example.com/mcp"])
def test_a_host_is_named_without_scheme_and_port(wrong: str) -> None:
    """What could never be a host's name is refused, and not silently without effect."""
    assert Settings.load(allowed_hosts="rag.example.com, 10.0.0.7,fd00::7,*").allowed_hosts
    with pytest.raises(SettingsError, match="ALLOWED_HOSTS: must be host names"):
        Settings.load(allowed_hosts=wrong)


def test_nothing_else_reads_the_environment() -> None:
    """No module but settings.py reads environment variables; one hands the system's own on to a process."""
    root = Path(__file__).parents[1]
    files = [
        *root.glob("*.py"),
        *(file for part in ("components", "modes", "serve") for file in (root / part).rglob("*.py")),
    ]
    reading = [
        file.name
        for file in files
        if any(word in file.read_text() for word in ("os.environ[", "environ.get(", "getenv("))
    ]
    assert reading == ["nursery.py"]
