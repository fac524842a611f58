"""Who may do what: callers, their keys, and the rule of each route."""

from serve.access.callers import Caller, Role, caller_of

__all__ = ["Caller", "Role", "caller_of"]
