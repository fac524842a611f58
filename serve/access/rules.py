"""What each route asks of a caller: the one table of it. A route that is not in it is nobody's."""

from collections.abc import Iterator
from dataclasses import dataclass

from starlette.routing import compile_path

from serve.access.callers import EVERY_ROLE, Caller, Role
from serve.access.errors import ForbiddenError


@dataclass(frozen=True)
class Rule:
    """
    What a route asks.

    :param roles: a caller needs one of them.
    :param is_open: whether nobody is asked for a key.
    :param all_tenants: whether the caller must be allowed every tenant, since the route is about all of them.
    """

    roles: frozenset[Role] = frozenset()
    is_open: bool = False
    all_tenants: bool = False

    def allows(self, caller: Caller) -> bool:
        """
        Tell whether a caller's key has a role that does.

        :param caller: the caller.
        :returns: whether it has.
        """
        return self.is_open or not caller.roles.isdisjoint(self.roles)

    def check(self, caller: Caller) -> None:
        """
        Let a caller pass, or not.

        :param caller: the caller.
        :raises ForbiddenError: if its key is not for this.
        """
        if not self.allows(caller):
            raise ForbiddenError.without_role(sorted(self.roles))
        if self.all_tenants:
            caller.check_all_tenants()


OPEN = Rule(is_open=True)
"""Of what anybody may see."""
_ANY = Rule(EVERY_ROLE)
QUERY = Rule(frozenset({Role.QUERY}))
"""Of what reads documents, or answers from them."""
INGEST = Rule(frozenset({Role.INGEST}))
"""Of what brings or removes documents."""
_ADMIN = Rule(frozenset({Role.ADMIN}))
# Whoever brings documents, asks of them, or has them indexed anew, may see how far that is.
_FOLLOW = Rule(EVERY_ROLE)
_OPERATE = Rule(frozenset({Role.ADMIN}), all_tenants=True)
_TRACES = Rule(frozenset({Role.QUERY, Role.ADMIN}))
_TOOLS = Rule(frozenset({Role.QUERY, Role.INGEST}))
NOT_ALLOWED = Rule()
"""Of a route that is not in the table."""

RULES: dict[tuple[str, str], Rule] = {
    ("GET", "/"): OPEN,
    ("GET", "/playground/{name}"): OPEN,
    ("GET", "/health"): OPEN,
    ("GET", "/ready"): OPEN,
    ("GET", "/openapi.json"): _ANY,
    # The page alone; what it shows is the OpenAPI document.
    ("GET", "/docs"): OPEN,
    ("GET", "/status"): _ANY,
    ("GET", "/status/{pipeline_name}"): _ANY,
    ("GET", "/modes"): _ANY,
    ("GET", "/modes/{mode}"): _ANY,
    ("GET", "/pipelines"): _ANY,
    ("GET", "/query/"): QUERY,
    ("POST", "/query/"): QUERY,
    ("POST", "/query/batch"): QUERY,
    ("POST", "/{name}/run"): QUERY,
    ("GET", "/v1/models"): _ANY,
    ("GET", "/v1/models/{model}"): _ANY,
    ("POST", "/v1/chat/completions"): QUERY,
    ("POST", "/v1/responses"): QUERY,
    # Each tool has a role of its own.
    ("POST", "/mcp"): _TOOLS,
    ("GET", "/documents"): QUERY,
    ("GET", "/documents/{document_id:path}"): QUERY,
    ("DELETE", "/documents/{document_id:path}"): INGEST,
    ("POST", "/ingest/"): INGEST,
    ("POST", "/ingest/files"): INGEST,
    ("GET", "/ingest/"): _FOLLOW,
    ("GET", "/ingest/{job_id}"): _FOLLOW,
    ("GET", "/ingest/{job_id}/sources"): _FOLLOW,
    ("GET", "/ingest/{job_id}/events"): _FOLLOW,
    ("POST", "/ingest/{job_id}/retry"): INGEST,
    ("DELETE", "/ingest/{job_id}"): INGEST,
    ("GET", "/traces/{request_id}"): _TRACES,
    ("DELETE", "/tenants/{tenant_id}"): _ADMIN,
    ("POST", "/tenants/{tenant_id}/reindex"): _ADMIN,
    ("GET", "/metrics"): _OPERATE,
}
_PATTERNS = [(method, compile_path(path)[0], rule) for (method, path), rule in RULES.items()]


def rules_of(method: str, path: str) -> Iterator[Rule]:
    """
    Find what a request is asked; where several routes would fit, what each of them asks.

    :param method: the request's method.
    :param path: its path.
    :returns: the rules; none for a route that is not in the table.
    """
    method = "GET" if method == "HEAD" else method
    return (rule for known, pattern, rule in _PATTERNS if known == method and pattern.match(path))
