"""The command `thresher documents`."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from serve.commands.terminal import (
    AsJson,
    NamedTenant,
    Tenant,
    err,
    first_of,
    out,
    plain_errors,
    print_json,
    print_list,
    quiet_settings,
)

app = typer.Typer(help="List documents; show and delete them.", invoke_without_command=True)

_DocumentID = Annotated[str, typer.Argument(metavar="ID", help="A document's id.")]


@app.callback()
def documents(
    context: typer.Context,
    tenant: Tenant = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List a tenant's documents; show and delete them."""
    if context.invoked_subcommand is not None:
        return
    with plain_errors():
        from serve.commands.client import Client
        from serve.commands.listings import show_documents

        with Client(quiet_settings()) as client:
            found = first_of(client.documents(tenant), limit)
        print_list(found, limit, as_json, show_documents)


@app.command()
def show(document: _DocumentID, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Show a document and its chunks."""
    with plain_errors():
        from serve.commands.client import Client
        from serve.commands.listings import show_document

        with Client(quiet_settings()) as client:
            found = client.document(tenant, document)
        if as_json:
            print_json(found)
        else:
            show_document(out, found)


@app.command()
def delete(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The documents' ids.")],
    tenant: Tenant = None,
) -> None:
    """Delete documents; one that can't be deleted does not keep the others."""
    with plain_errors():
        from serve.commands.client import Client
        from serve.commands.replies import ServiceError

        failed = False
        with Client(quiet_settings()) as client:
            for name in ids:
                try:
                    client.delete_document(tenant, name)
                except ServiceError as error:
                    if not 400 <= error.status < 500:
                        raise
                    err.print(f"[red]error:[/] {escape(f'{name!r} is not deleted: {error}')}", soft_wrap=True)
                    failed = True
                else:
                    out.print(Text(f"deleted {name}"), soft_wrap=True)
        if failed:
            raise typer.Exit(1)


@app.command()
def drop_tenant(
    tenant: NamedTenant,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a tenant with all its documents; asks first."""
    with plain_errors():
        from serve.commands.client import Client

        if not yes:
            typer.confirm(f"Delete every document of tenant '{tenant}'?", abort=True)
        with Client(quiet_settings()) as client:
            client.drop_tenant(tenant)
        out.print(f"tenant '{tenant}' is gone", highlight=False)
