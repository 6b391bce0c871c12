"""The official Python client, for the bench `mcp`, which runs this script.

    python mcp_client.py URL CALLERS CALLS     prints calls a second of CALLERS tasks over one session
"""

import asyncio
import logging
import sys
import time

from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client


async def main(url, callers, calls):
    async with streamable_http_client(url) as streams:
        async with ClientSession(streams[0], streams[1]) as session:
            await session.initialize()

            async def caller():
                for _ in range(calls // callers):
                    await session.call_tool("pay", {"amount": 1})

            await session.call_tool("pay", {"amount": 1})
            began = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(callers)))
            print(calls // callers * callers / (time.perf_counter() - began))


logging.disable(logging.CRITICAL)
asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
