"""A server made with the official Python SDK: `server.py stdio`, or `server.py http PORT`."""

import os
import sys

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server = MCPServer("python", version="1")
cancelled = []


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def fail(reason: str) -> str:
    """Always fails."""
    raise ValueError(reason)


@server.tool()
async def slow(seconds: float, ctx: Context) -> str:
    """Takes its time and reports progress."""
    try:
        for step in range(4):
            await ctx.report_progress(step, 4)
            await anyio.sleep(seconds / 4)
    except anyio.get_cancelled_exc_class():
        cancelled.append(seconds)
        raise
    return "done"


@server.tool()
def cancellations() -> int:
    """Counts the calls of slow that were cancelled."""
    return len(cancelled)


@server.tool()
def large(bytes: int) -> str:
    """Returns a long text."""
    return "x" * bytes


@server.tool()
def environment() -> list[str]:
    """Lists the names of the variables that the server sees."""
    return sorted(os.environ)


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
