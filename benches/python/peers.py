"""Measures the real Python package and adds its figures to target/bench/*.json.

    python3 -m venv target/python && target/python/bin/pip install "arshai[redis]==1.15.0"
    cargo bench --bench memory && cargo bench --bench tasks && cargo bench --bench redis
    target/python/bin/python benches/python/peers.py

Needs Python 3.11 or 3.12. Run it after the benches, on the same machine. Each figure is the median of five rounds.
"""

import asyncio
import json
import logging
import os
import socket
import statistics
import subprocess
import time
from pathlib import Path

import redis
from arshai.core.interfaces.imemorymanager import ConversationMemoryType, IMemoryInput, IWorkingMemory
from arshai.llms.utils.function_execution import FunctionCall, FunctionExecutionInput, FunctionOrchestrator
from arshai.memory.working_memory.in_memory_manager import InMemoryManager
from arshai.memory.working_memory.redis_memory_manager import RedisWorkingMemoryManager

PEER = "arshai-python 1.15.0"
ROUNDS = 5
BENCH = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).parents[2] / "target")) / "bench"


def memory_input(conversation, text=None):
    data = [IWorkingMemory(working_memory=text)] if text else None
    return IMemoryInput(conversation_id=conversation, memory_type=ConversationMemoryType.WORKING_MEMORY, data=data)


def memory(live, operation):
    """Nanoseconds of one operation with `live` conversations; each scans them all."""
    manager = InMemoryManager()
    template = memory_input("0", "x" * 100)
    manager.store(template)
    entry = manager.storage[next(iter(manager.storage))]
    # Put in place directly: storing one by one would scan the earlier ones each time.
    for n in range(live):
        manager.storage[f"memory:WORKING_MEMORY:{n}"] = dict(entry)
    operations = 20
    began = time.perf_counter()
    for n in range(operations):
        operation(manager, str(n))
    return (time.perf_counter() - began) / operations * 1e9


def get(manager, conversation):
    assert manager.retrieve(memory_input(conversation))


def store(manager, conversation):
    manager.store(memory_input(conversation, "x" * 100))


async def trivial_calls(count):
    """Nanoseconds of one call that returns at once, among `count` in one turn."""

    async def echo(n):
        return n

    calls = [FunctionCall(name="echo", args={"n": n}, call_id=str(n)) for n in range(count)]
    turn = FunctionExecutionInput(calls, {"echo": echo}, {})
    began = time.perf_counter()
    result = await FunctionOrchestrator().execute_functions(turn)
    elapsed = time.perf_counter() - began
    assert len(result.regular_results) == count
    return elapsed / count * 1e9


async def background_bytes(count):
    """MiB by which the process grows with `count` background tasks."""

    async def wait():
        await asyncio.sleep(3600)

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    calls = [FunctionCall(name="wait", args={}, call_id=str(n), is_background=True) for n in range(count)]
    turn = FunctionExecutionInput(calls, {}, {"wait": wait})
    orchestrator = FunctionOrchestrator()
    before = resident()
    await orchestrator.execute_functions(turn)
    await asyncio.sleep(0)
    grown = (resident() - before) / (1 << 20)
    for task in list(orchestrator._background_tasks):
        task.cancel()
    return grown


def redis_operations():
    """Operations per second in Redis, storing and retrieving 1 KiB in turn: the client blocks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""], stdout=subprocess.DEVNULL
    )
    try:
        manager = RedisWorkingMemoryManager(storage_url=f"redis://127.0.0.1:{port}/0", ttl=43_200)
        wait_for(manager)
        pairs = 2_000
        began = time.perf_counter()
        for n in range(pairs):
            manager.store(memory_input(str(n % 50), "x" * 1024))
            assert manager.retrieve(memory_input(str(n % 50)))
        return 2 * pairs / (time.perf_counter() - began)
    finally:
        server.terminate()
        server.wait()


def wait_for(manager):
    for _ in range(100):
        try:
            return manager.redis_client.ping()
        except redis.exceptions.ConnectionError:
            time.sleep(0.05)
    raise SystemExit("redis-server does not answer")


def median(measure):
    return statistics.median(measure() for _ in range(ROUNDS))


def record(bench, figures):
    path = BENCH / f"{bench}.json"
    if not path.exists():
        raise SystemExit(f"{path} is missing: run `cargo bench --bench {bench}` first")
    data = json.loads(path.read_text())
    rows = {row["case"]: row for row in data["rows"]}
    for case, figure in figures.items():
        if case not in rows:
            raise SystemExit(f"{path} has no row {case}; it has {', '.join(rows)}")
        rows[case]["peers"][PEER] = figure
        ours = rows[case]["ours"]
        times = ours / figure if rows[case]["better"] == "higher" else figure / ours
        print(f"{case:<28} ours {ours:>12.1f}  {PEER} {figure:>14.1f}  {times:,.1f} x")
    path.write_text(json.dumps(data, indent=2))


def main():
    logging.disable(logging.CRITICAL)
    sizes = {"1k": 1_000, "10k": 10_000}
    operations = {"get": get, "store": store}
    figures = {
        f"{name}_100B_{size}_live": median(lambda: memory(live, operation))
        for name, operation in operations.items()
        for size, live in sizes.items()
    }
    record("memory", figures)
    print(f"{'20 000 live conversations':<28} {PEER} {median(lambda: memory(20_000, get)) / 1e6:.1f} ms per get")
    record(
        "tasks",
        {
            "trivial_call": median(lambda: asyncio.run(trivial_calls(10_000))),
            "background_100k_rss": asyncio.run(background_bytes(100_000)),
        },
    )
    record("redis", {"store_retrieve_1KiB_1callers_multi": median(redis_operations)})


main()
