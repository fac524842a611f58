"""What the service costs around the search and the model: processor time, waiting and throughput, over the floor."""

from statistics import median
from typing import Any

from benchmarks import load
from benchmarks.report import aim, console, save, show
from benchmarks.rig import Rig, rig

MODES = {"standard": "standard", "structured": "structured", "crag_llm": "crag (LLM grader)"}
CLIENTS = 64
CPU_AIMS = {"standard": 2.7, "crag_llm": 3.9}
CROWD_AIMS = {("standard", 0): 0.37, ("crag_llm", 0): 0.2, ("standard", 500): 0.93, ("crag_llm", 500): 0.93}
CALLS_AIM = ("crag_llm", 50, 2.3)

Row = dict[str, Any]


async def measure(quick: bool, provider: str = "ollama") -> None:
    """
    Measure, print and save.

    :param quick: fewer queries.
    :param provider: which of the stub's protocols the service speaks.
    """
    rounds, queries, seconds = (2, 40, 1.5) if quick else (5, 150, 4.0)
    async with rig(provider) as servers:
        single, waiting, crowds = [], [], []
        await _warm_up(servers)
        for mode in MODES:
            single.append(await _one_client(servers, mode, rounds, queries))
        show("One client, model calls of 0 ms: per query", single)
        for mode in MODES:
            waiting.append(await _waiting(servers, mode, 50, queries // 5))
        show("One client, model calls of 50 ms", waiting)
        for latency in (0, 50, 500):
            for mode in MODES:
                crowds.append(await _crowd(servers, mode, latency, rounds, seconds + latency / 250))
        show(f"{CLIENTS} clients: queries per second", crowds)
    console.print(save("overhead", [*single, *waiting, *crowds], provider=provider, clients=CLIENTS))


async def _warm_up(servers: Rig) -> None:
    await servers.set_latency(0)
    for mode in MODES:
        for server in (servers.floor, servers.service):
            await load.ask(server, servers.questions, mode, len(servers.questions))


async def _one_client(servers: Rig, mode: str, rounds: int, queries: int) -> Row:
    await servers.set_latency(0)
    floor, service = [], []
    for _ in range(rounds):
        floor.append(await load.ask(servers.floor, servers.questions, mode, queries))
        service.append(await load.ask(servers.service, servers.questions, mode, queries))
    ratio = median(s.cpu_ms / f.cpu_ms for f, s in zip(floor, service, strict=True))
    return {
        "mode": MODES[mode],
        "floor CPU ms": median(seen.cpu_ms for seen in floor),
        "CPU ms": median(seen.cpu_ms for seen in service),
        "CPU ratio": ratio,
        "aim": aim(ratio, most=CPU_AIMS[mode]) if mode in CPU_AIMS else "",
        "floor p50 ms": median(seen.p50_ms for seen in floor),
        "p50 ms": median(seen.p50_ms for seen in service),
    }


async def _waiting(servers: Rig, mode: str, latency: int, queries: int) -> Row:
    await servers.set_latency(latency)
    floor = await load.ask(servers.floor, servers.questions, mode, queries)
    service = await load.ask(servers.service, servers.questions, mode, queries)
    calls = service.p50_ms / latency
    wanted = CALLS_AIM[2] if CALLS_AIM[:2] == (mode, latency) else None
    return {
        "mode": MODES[mode],
        "floor p50 ms": floor.p50_ms,
        "p50 ms": service.p50_ms,
        "in calls": calls,
        "aim": aim(calls, most=wanted) if wanted else "",
    }


async def _crowd(servers: Rig, mode: str, latency: int, rounds: int, seconds: float) -> Row:
    await servers.set_latency(latency)
    floor, service = [], []
    for _ in range(max(rounds // 2, 1)):
        floor.append(await load.crowd(servers.floor, servers.questions, mode, CLIENTS, seconds))
        service.append(await load.crowd(servers.service, servers.questions, mode, CLIENTS, seconds))
    ratio = median(s.per_second / f.per_second for f, s in zip(floor, service, strict=True))
    wanted = CROWD_AIMS.get((mode, latency))
    return {
        "mode": MODES[mode],
        "model call ms": latency,
        "floor q/s": median(seen.per_second for seen in floor),
        "q/s": median(seen.per_second for seen in service),
        "ratio": ratio,
        "aim": aim(ratio, least=wanted) if wanted else "",
        "CPU ms": median(seen.cpu_ms for seen in service),
        "p50 ms": median(seen.p50_ms for seen in service),
    }
