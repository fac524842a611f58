"""The command `thresher keys`."""

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from serve.access.callers import Role
from serve.commands.terminal import AsJson, checked_tenant, err, out, plain_errors, print_json, quiet_settings
from settings import Settings

if TYPE_CHECKING:
    from serve.access.keys import ApiKey

app = typer.Typer(help="Make, list and revoke the API keys of the service.", no_args_is_help=True)

_ANY_TENANT = "*"
_NAME_CHARS = 200
_SPAN = re.compile(r"([0-9]{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _checked_tenants(tenants: list[str]) -> list[str]:
    if _ANY_TENANT in tenants and set(tenants) != {_ANY_TENANT}:
        raise typer.BadParameter("'*' is every tenant, so no other one can be named beside it")
    for tenant in tenants:
        if tenant != _ANY_TENANT:
            checked_tenant(tenant)
    return tenants


def _checked_name(name: str | None) -> str | None:
    if name is not None and len(name) > _NAME_CHARS:
        raise typer.BadParameter(f"a name has at most {_NAME_CHARS} characters")
    return name


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        roles = ", ".join(f"'{role}'" for role in Role)
        raise typer.BadParameter(f"'{text}' is none of {roles}") from None


def _moment(text: str | datetime) -> datetime:
    """Read a span from now, or a date; a date without a zone is in UTC."""
    if isinstance(text, datetime):
        return text
    now = datetime.now(UTC)
    try:
        if span := _SPAN.fullmatch(text):
            moment = now + timedelta(**{_UNITS[span[2]]: int(span[1])})
        else:
            moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"'{text}' is no span as 90d, 12h or 2w, and no date as 2027-01-31"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment <= now:
        raise typer.BadParameter(f"'{text}' is over already")
    return moment.replace(microsecond=0)


_Tenants = Annotated[
    list[str],
    typer.Option(
        "--tenant",
        "-t",
        help="Whose documents; may be repeated, and * is every tenant.",
        callback=_checked_tenants,
    ),
]
_Roles = Annotated[
    list[Role],
    typer.Option(
        "--role",
        "-r",
        parser=_role,
        metavar="|".join(Role),
        help="What the key allows; may be repeated.",
    ),
]
_Name = Annotated[str | None, typer.Option(help="What to call the key in lists.", callback=_checked_name)]
_Expires = Annotated[
    datetime | None,
    typer.Option(
        parser=_moment, metavar="WHEN", help="When it ends: a span as 90d, 12h or 2w, or a date; else never."
    ),
]


@app.command()
def create(
    tenant: _Tenants,
    role: _Roles = [Role.QUERY],  # noqa: B006
    name: _Name = None,
    expires: _Expires = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, and print it: this once, for only its hash is kept. A service that runs takes it at once."""
    with plain_errors():
        from serve.access.key_file import KeyFile
        from serve.access.keys import new_key

        path = quiet_settings().keys_file
        secret, key = new_key(tenant, role, name, expires)
        KeyFile(path).add(key)
        if as_json:
            print_json({"key": secret, **_shown(key)})
            return
        out.print(secret, markup=False, highlight=False, soft_wrap=True)
        err.print(
            Text(f"{key.id} is kept in {path} as its hash; the key itself is shown this once"), soft_wrap=True
        )


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List the keys: what they allow and until when, never the keys themselves."""
    with plain_errors():
        from serve.access.key_file import KeyFile
        from serve.commands.listings import show_keys

        settings = quiet_settings()
        path = settings.keys_file
        keys = [{**_shown(key), "kept_in": str(path)} for key in KeyFile(path).read()]
        keys += [{**_shown(key), "kept_in": "API_KEYS"} for key in _given_keys(settings)]
        if as_json:
            print_json(keys)
        elif keys:
            show_keys(out, keys)
        else:
            err.print(
                Text(f"there are none in {path}; make one with `thresher keys create --tenant NAME`"),
                soft_wrap=True,
            )


@app.command()
def revoke(ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The keys' ids.")]) -> None:
    """Revoke keys: a service that runs refuses them at once."""
    with plain_errors():
        from serve.access.errors import KeysError
        from serve.access.key_file import KeyFile

        settings = quiet_settings()
        file = KeyFile(settings.keys_file)
        given = {key.id for key in _given_keys(settings)}
        for key_id in ids:
            if key_id in given:
                raise KeysError(
                    f"'{key_id}' stands in API_KEYS: take it out there, and start the service anew"
                )
            revoked = file.remove(key_id)
            named = f" ({revoked.name})" if revoked.name else ""
            out.print(Text(f"revoked {revoked.id}{named}"), soft_wrap=True)


def _given_keys(settings: Settings) -> "tuple[ApiKey, ...]":
    from serve.access.keys import read_keys

    given = settings.api_keys
    return read_keys(given.get_secret_value(), "API_KEYS") if given else ()


def _shown(key: Any) -> dict[str, Any]:
    shown: dict[str, Any] = key.model_dump(mode="json", exclude={"sha256"})
    return {**shown, "expired": key.has_expired()}
