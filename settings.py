"""Every setting of the service, read once and passed down.

Environment variables win over the file `.env` in the working directory, which wins over the defaults.
No other module reads the environment.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PROJECT_ROOT = Path(__file__).resolve().parent
BUILTIN_PIPELINES = PROJECT_ROOT / "pipelines"
_HOST_NAME = re.compile(r"\*|[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")


LogFormat = Literal["auto", "console", "json"]


class SettingsError(ValueError):
    """A setting has a wrong value; the message names the variable and says what is allowed."""


class Settings(BaseSettings):
    """Configuration of Thresher; each field is the environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", hide_input_in_errors=True, frozen=True
    )

    # The HTTP service
    api_title: str = Field("Thresher", description="Title shown in the OpenAPI document.")
    api_version: str = Field(
        "1.0.0", description="Version shown in the OpenAPI document and by `GET /health`."
    )
    host: str = Field("127.0.0.1", description="Address the server binds to.")
    port: int = Field(8000, ge=0, le=65535, description="Port the server binds to; 0 takes a free one.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe level that is logged."
    )
    log_format: LogFormat = Field(
        "auto",
        description=(
            "How log lines look: `console` for people, `json` for programs; `auto` is `console` on a terminal, else"
            " `json`."
        ),
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description=(
            "Port of `GET /metrics` alone, without a key; 0 takes a free one. Unset, it is on the service's port, for"
            " keys with the role `admin`."
        ),
    )
    metrics_host: str | None = Field(
        None, description="Address that `METRICS_PORT` is bound to, e.g. `127.0.0.1`; unset, that of `HOST`."
    )
    metrics_tenants: bool = Field(
        False, description="Whether `/metrics` also counts answers by tenant, which tells who there is."
    )
    max_question_chars: int = Field(
        4_000, ge=1, description="Longest question accepted, and longest instructions, in characters."
    )
    max_batch_questions: int = Field(
        100, ge=1, description="Questions one `POST /query/batch` may carry; more are a 422."
    )
    batch_concurrency: int = Field(
        4,
        ge=1,
        description="Questions of one batch, or of `thresher ask --file`, that are answered at a time.",
    )
    max_body_bytes: int = Field(
        32 * 1024 * 1024,
        ge=1024,
        description="Largest request body accepted, in bytes; a larger one is a 413.",
    )
    max_question_bytes: int = Field(
        8 * 1024 * 1024,
        ge=1024,
        description="Largest body of a question, a batch or a conversation, in bytes; a larger one is a 413.",
    )
    max_top_k: int = Field(50, ge=1, description="Largest `k` (chunks to retrieve) a request may ask for.")
    request_timeout: float = Field(300.0, gt=0, description="Seconds a query may take before it is a 504.")
    max_questions: int | None = Field(
        None,
        ge=1,
        description=(
            "Questions answered at a time, by this process; one more is a 503. Unset, as many as `LLM_CONCURRENCY`, and"
            " without a language model any number."
        ),
    )
    max_requests_per_minute: int = Field(
        0, ge=0, description="Requests of one API key a minute; one more is a 429. 0 is no limit."
    )
    max_tokens_per_minute: int = Field(
        0,
        ge=0,
        description=(
            "Tokens the language model spends for one API key a minute; questions beyond are a 429. 0 is no limit."
        ),
    )
    max_concurrent_requests: int = Field(
        500, ge=0, description="Requests of one API key at a time; one more is a 429. 0 is no limit."
    )
    max_header_bytes: int = Field(
        32 * 1024,
        ge=1024,
        description="Largest headers of a request accepted, in bytes; larger ones are a 431.",
    )
    shutdown_delay: float = Field(
        0.0,
        ge=0,
        description=(
            "Seconds for which a service that was told to stop still takes requests, while `GET /ready` is a 503"
            " already."
        ),
    )
    shutdown_grace: float = Field(
        10.0, gt=0, description="Seconds requests under way have to end when the service stops."
    )
    breaker_failures: int = Field(
        5,
        ge=1,
        description=(
            "Failures in a row of Chroma's server, a model's server or Redis, after which it is left alone for a while"
            " and its callers get a 503 at once."
        ),
    )
    breaker_seconds: float = Field(
        10.0, gt=0, description="Seconds after which what kept failing is asked again, by one caller first."
    )

    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description=(
            "Host names (comma separated) of web pages that may call the service where it asks for no key, besides"
            " this machine's own; `*` for every one."
        ),
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description=(
            "Addresses or networks (comma separated) of proxies that are believed what they say of their callers in"
            " `X-Forwarded-For` and `X-Forwarded-Proto`."
        ),
    )

    # Who may come in
    auth: Literal["auto", "on", "off"] = Field(
        "auto",
        description=(
            "Whether callers need an API key; `auto` asks for one when there are keys, or others than this machine can"
            " reach the service."
        ),
    )
    api_keys_file: Path | None = Field(
        None,
        description="File of the API keys; unset, `api_keys.json` in `DATA_DIR`. Read again when it changes.",
    )
    api_keys: SecretStr | None = Field(
        None,
        description="Further API keys, as JSON in the form of the file; they hold until the process ends.",
    )
    api_key: SecretStr | None = Field(
        None, description="API key that the commands send to the service that runs."
    )

    # Modes
    pipelines_dir: Path | None = Field(
        None,
        description=(
            "Directory with further modes and pipelines (`*.yml`) and Hayhooks wrappers; a file there wins over a"
            " built-in mode."
        ),
    )
    pipeline_wrappers: bool = Field(
        True,
        description="Whether directories of `PIPELINES_DIR` may bring Python code, as Hayhooks wrappers.",
    )
    allowed_modules: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description=(
            "Further Python modules (comma separated, e.g. `mypackage.*`) that pipeline files may name components"
            " from; `components`, `haystack` and `haystack_integrations` always may."
        ),
    )
    top_k: int = Field(5, ge=1, description="Chunks retrieved when the request does not say.")

    # Documents
    data_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("thresher")),
        description="Directory of the embedded Chroma database and the job store; one process at a time.",
    )
    chroma_host: str | None = Field(
        None, description="Host of a Chroma server; unset, Chroma runs inside the process under `DATA_DIR`."
    )
    chroma_port: int = Field(8001, ge=1, le=65535, description="Port of the Chroma server.")
    chroma_timeout: float = Field(10.0, gt=0, description="Seconds any call to Chroma may take.")
    collection_prefix: str = Field(
        "tenant_",
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]{0,31}$",
        description="Prefix of every collection's name; the tenant id follows.",
    )

    # Language model
    llm_provider: Literal["auto", "embedded", "ollama", "openai", "extractive"] = Field(
        "auto",
        description=(
            "`auto` takes Ollama when `OLLAMA_URL` is set, or its default port answers and holds the model, else"
            " the built-in model, else extractive answers."
        ),
    )
    default_model: str = Field(
        "llama3.2:3b", min_length=1, description="Model asked of Ollama or an OpenAI-compatible server."
    )
    allowed_models: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Further models (comma separated) a request may choose with `model=`."
    )
    ollama_url: str | None = Field(
        None, description="Base URL of an Ollama server, e.g. `http://localhost:11434`."
    )
    openai_base_url: str | None = Field(
        None,
        description="Base URL of an OpenAI-compatible server (vLLM, llama.cpp), e.g. `http://localhost:8080/v1`.",
    )
    openai_api_key: SecretStr | None = Field(
        None, description="API key sent to the OpenAI-compatible server."
    )
    embedded_model: Literal["qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b"] = Field(
        "qwen2.5-coder-1.5b",
        description="Built-in model; `0.5b` is three times faster and clearly less right.",
    )
    llm_gguf_path: Path | None = Field(None, description="Any other GGUF file to run as the built-in model.")
    llm_threads: int = Field(
        0, ge=0, description="Threads of the built-in model; 0 takes the available cores."
    )
    llm_concurrency: int = Field(
        2,
        ge=1,
        description="Language model calls at a time; the built-in model has as many parallel sequences.",
    )
    llm_queue: int = Field(
        200,
        ge=0,
        description="Language model calls that may wait for their turn; a question that needs one more is a 503.",
    )
    llm_timeout: float = Field(120.0, gt=0, description="Seconds one language model call may take.")
    max_context_chars: int | None = Field(
        None,
        ge=200,
        description=(
            "Characters of document text put into a prompt; unset, it depends on the provider (the built-in model"
            " reads slowly and gets the best sentences only)."
        ),
    )
    models_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_dir("thresher")) / "models",
        description="Directory of the model files, shared between clones.",
    )

    # Embeddings
    embedding_provider: Literal["embedded", "ollama", "openai"] = Field(
        "embedded", description="Where embeddings are made; `embedded` is MiniLM on onnxruntime."
    )
    embedding_model: str = Field(
        "nomic-embed-text", description="Embedding model asked of Ollama or an OpenAI-compatible server."
    )
    embedding_timeout: float = Field(
        30.0, gt=0, description="Seconds one call to the embedding model's server may take."
    )
    embedding_threads: int = Field(1, ge=1, description="Threads of the built-in embedding model.")

    # Ingestion
    redis_url: SecretStr | None = Field(
        None,
        description=(
            "Redis that keeps the jobs, e.g. `redis://localhost:6379/0`; `thresher serve` then only accepts them and"
            " `thresher worker` processes work on them. Unset, they are in a SQLite file under `DATA_DIR`. Needs"
            " `CHROMA_HOST`."
        ),
    )
    redis_prefix: str = Field(
        "thresher",
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]{0,31}$",
        description="What every key in Redis begins with.",
    )
    ingest_workers: int = Field(
        2, ge=1, le=32, description="Ingestion jobs worked on at a time, by each process that works on jobs."
    )
    ingest_batch_size: int = Field(
        256,
        ge=1,
        le=1000,
        description="Most documents a job indexes between two checkpoints; fewer where they take over a second.",
    )
    ingest_retries: int = Field(
        8, ge=0, description="Passing faults in a row (Chroma, embedder or Redis away) that a job survives."
    )
    worker_grace: float = Field(
        10.0,
        gt=0,
        description="Seconds a stopping process gives the batches under way before it hands jobs back.",
    )
    max_documents_per_job: int = Field(10_000, ge=1, description="Documents or files one request may carry.")
    max_queued_jobs: int = Field(10_000, ge=1, description="Unfinished jobs accepted; one more is a 503.")
    max_queued_jobs_per_tenant: int = Field(
        1_000, ge=1, description="Unfinished jobs accepted of one tenant; one more is a 429."
    )
    max_upload_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1024,
        description="Largest `POST /ingest/files` accepted, in bytes; a larger one is a 413.",
    )
    max_file_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1,
        description="Largest single file of an upload, in bytes; a larger one is a 413.",
    )
    job_ttl: int = Field(
        7 * 24 * 3_600,
        ge=1,
        description="Seconds for which a finished job, and its idempotency key, are known.",
    )
    staged_ttl: int = Field(
        7 * 24 * 3_600,
        ge=1,
        description="Seconds for which what failed in a finished job is kept for a retry; at most `JOB_TTL`.",
    )
    convert_timeout: float = Field(60.0, gt=0, description="Seconds the conversion of one file may take.")
    convert_memory_mb: int = Field(
        1_024, ge=128, description="Megabytes of memory the conversion of one file may take."
    )
    convert_max_chars: int = Field(
        20_000_000, ge=1_000, description="Characters of text one file may give; a file with more fails."
    )
    max_open_tenants: int = Field(
        100,
        ge=4,
        description=(
            "Tenants whose index embedded Chroma keeps in memory, rounded up to a multiple of 64; about 3 MB and 5"
            " open files each."
        ),
    )

    # Traces
    otel_exporter_otlp_endpoint: str | None = Field(
        None,
        description=(
            "Base URL of an OpenTelemetry collector (OTLP over HTTP), e.g. `http://localhost:4318`; unset, no spans are"
            " made."
        ),
    )
    otel_exporter_otlp_headers: SecretStr | None = Field(
        None, description="Headers sent to the collector, as `name=value` with commas between."
    )
    otel_service_name: str = Field("thresher", description="What the service is called in traces.")
    trace_content: bool = Field(
        False,
        description="Whether spans and kept runs hold questions, documents' texts and answers, too.",
    )
    trace_store: bool = Field(
        False,
        description=(
            "Whether each question's run is kept for `thresher replay`: in Redis where `REDIS_URL` is set, else in a"
            " SQLite file under `DATA_DIR`."
        ),
    )
    trace_ttl: int = Field(7 * 24 * 3_600, ge=1, description="Seconds for which a run is kept.")
    trace_max_runs: int = Field(
        10_000,
        ge=1,
        description="Runs kept of one tenant, and a tenth of those kept in all; beyond it the oldest are forgotten.",
    )

    @field_validator("allowed_modules", "allowed_models", "allowed_hosts", "trusted_proxies", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator(
        "chroma_host",
        "ollama_url",
        "openai_base_url",
        "openai_api_key",
        "redis_url",
        "metrics_port",
        "metrics_host",
        "pipelines_dir",
        "llm_gguf_path",
        "api_keys_file",
        "api_keys",
        "api_key",
        "otel_exporter_otlp_endpoint",
        "otel_exporter_otlp_headers",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("pipelines_dir", "data_dir", "models_dir", "llm_gguf_path", "api_keys_file")
    @classmethod
    def _expand_home(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("pipelines_dir")
    @classmethod
    def _is_directory(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_dir():
            raise ValueError(f"{value} is no directory")
        return value

    @field_validator("llm_gguf_path")
    @classmethod
    def _is_file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"{value} is no file")
        return value

    @field_validator("ollama_url", "openai_base_url", "otel_exporter_otlp_endpoint")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/") if value else value

    @field_validator("allowed_hosts")
    @classmethod
    def _host_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_HOST_NAME.fullmatch(name) for name in value):
            raise ValueError("must be host names without scheme and port, e.g. rag.example.com, or *")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            try:
                ipaddress.ip_network(name)
            except ValueError:
                raise ValueError("must be addresses or networks, e.g. 127.0.0.1,10.0.0.0/8") from None
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(
            ("redis://", "rediss://", "unix://")
        ):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return value

    @model_validator(mode="after")
    def _workers_share_chroma(self) -> Self:
        if self.redis_url is not None and self.chroma_host is None:
            raise ValueError(
                "CHROMA_HOST must be set when REDIS_URL is: embedded Chroma can't be shared by processes"
            )
        return self

    @model_validator(mode="after")
    def _provider_has_its_url(self) -> Self:
        if "openai" in (self.llm_provider, self.embedding_provider) and self.openai_base_url is None:
            raise ValueError("OPENAI_BASE_URL must be set when a provider is `openai`")
        return self

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """
        Read the settings.

        :param overrides: values that win over the environment, by field name.
        :returns: the settings.
        :raises SettingsError: if a value is wrong; names the variable, never its value.
        """
        try:
            return cls(**overrides)
        except ValidationError as error:
            raise SettingsError(_readable(error)) from None

    @property
    def keys_file(self) -> Path:
        """Where the API keys are."""
        return self.api_keys_file or self.data_dir / "api_keys.json"

    @property
    def bound_to_loopback(self) -> bool:
        """Whether only programs on this machine can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _readable(error: ValidationError) -> str:
    lines = []
    for fault in error.errors(include_input=False, include_url=False, include_context=False):
        place = ".".join(str(part) for part in fault["loc"]).upper()
        message = fault["msg"].removeprefix("Value error, ")
        field = Settings.model_fields.get(str(fault["loc"][0])) if fault["loc"] else None
        meaning = f" ({field.description})" if field else ""
        lines.append(f"{place}: {message}{meaning}" if place else message)
    return "wrong settings:\n  " + "\n  ".join(lines)
