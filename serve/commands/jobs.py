"""The command `thresher jobs`."""

from typing import TYPE_CHECKING, Annotated

import typer

from serve.commands.ingest import follow_job
from serve.commands.terminal import (
    AsJson,
    Tenant,
    checked_tenant,
    first_of,
    out,
    plain_errors,
    print_json,
    print_list,
    quiet_settings,
)

if TYPE_CHECKING:
    from serve.commands.client import Client, Json

app = typer.Typer(
    help="List ingestion jobs; show, follow, cancel and retry one.", invoke_without_command=True
)

_JobID = Annotated[str, typer.Argument(metavar="JOB", help="A job's id.")]
_Owner = Annotated[
    str | None,
    typer.Option("--tenant", "-t", help="Whose job it must be.", callback=checked_tenant),
]


@app.callback()
def jobs(
    context: typer.Context,
    tenant: Tenant = None,
    status: Annotated[
        str | None, typer.Option(help="Only `pending`, `running`, `done`, `failed` or `cancelled` ones.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List ingestion jobs, the newest first; show, follow, cancel and retry one."""
    if context.invoked_subcommand is not None:
        return
    with plain_errors():
        from serve.commands.client import Client
        from serve.commands.listings import show_jobs

        with Client(quiet_settings()) as client:
            found = first_of(client.jobs(tenant, status), limit)
        print_list(found, limit, as_json, show_jobs)


@app.command()
def show(job: _JobID, tenant: _Owner = None, as_json: AsJson = False) -> None:
    """Show a job and what became of its documents."""
    with plain_errors():
        from serve.commands.client import Client
        from serve.commands.listings import show_job

        with Client(quiet_settings()) as client:
            found = _job(client, job, tenant)
        if as_json:
            print_json(found)
        else:
            show_job(out, found)


@app.command()
def watch(job: _JobID, tenant: _Owner = None) -> None:
    """Follow a job to its end; works on it where no service runs."""
    with plain_errors():
        from serve.commands.client import Client

        with Client(quiet_settings(), works=True) as client:
            follow_job(client, _job(client, job, tenant), "working")


@app.command()
def cancel(job: _JobID, tenant: _Owner = None) -> None:
    """Cancel a job; what it has indexed stays."""
    with plain_errors():
        from serve.commands.client import Client

        with Client(quiet_settings()) as client:
            _job(client, job, tenant)
            found = client.cancel(job)
        ended = found["status"] == "cancelled"
        what = "cancelled" if ended else "cancelling, once the batch under way has ended"
        written = f"{found['documents_ok']} of {found['total']} documents had been indexed"
        out.print(f"{what}; {written}", highlight=False)


@app.command()
def retry(job: _JobID, tenant: _Owner = None) -> None:
    """Run what failed in a job again, and follow it."""
    with plain_errors():
        from serve.commands.client import Client

        with Client(quiet_settings(), works=True) as client:
            _job(client, job, tenant)
            follow_job(client, client.retry(job), "trying again")


def _job(client: "Client", job_id: str, tenant: str | None) -> "Json":
    """Find a job, which must be the tenant's where one is named."""
    job = client.job(job_id)
    if tenant is not None and job["tenant_id"] != tenant:
        raise typer.BadParameter(
            f"tenant '{tenant}' has no job '{job_id}'; `thresher jobs -t {tenant}` lists its own"
        )
    return job
