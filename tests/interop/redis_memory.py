"""The real Python package, for tests of what both read and write.

Spoken to as lines.py says:

    store, update, retrieve, delete    conversation_id, memory_type, data (list of texts), metadata, ttl;
                                       data_json and metadata_json give either as a text of Python's JSON
    set_key                            key, value, expire
    get_key                            key

Bytes, either way, are {"base64": …}. REDIS_URL says which Redis.
"""

import lines

import asyncio
import base64
import json
import os

from arshai.clients.redis_client import RedisClient
from arshai.core.interfaces.imemorymanager import ConversationMemoryType, IMemoryInput, IWorkingMemory
from arshai.memory.working_memory.redis_memory_manager import RedisWorkingMemoryManager


def memory_input(request):
    # As texts of JSON, for what only Python's `json` reads.
    request |= {name: json.loads(request[f"{name}_json"]) for name in ("data", "metadata") if f"{name}_json" in request}
    texts = request.get("data")
    kind = request.get("memory_type")
    return IMemoryInput(
        conversation_id=request["conversation_id"],
        data=None if texts is None else [IWorkingMemory(working_memory=text) for text in texts],
        metadata=request.get("metadata"),
        **({"memory_type": ConversationMemoryType(kind)} if kind else {}),
    )


def memory(request):
    ttl = {"ttl": request["ttl"]} if "ttl" in request else {}
    manager = RedisWorkingMemoryManager(os.environ["REDIS_URL"], **ttl)
    try:
        found = getattr(manager, request["op"])(memory_input(request))
    finally:
        manager.redis_client.close()
    return [entry.working_memory for entry in found] if request["op"] == "retrieve" else found


def plain(value):
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def redis_value(value):
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value


async def client(request):
    if request["op"] == "set_key":
        return await RedisClient.set_key(request["key"], redis_value(request["value"]), request.get("expire"))
    return plain(await RedisClient.get_key(request["key"]))


def answer(runner, request):
    operation = request["op"]
    if operation in ("store", "update", "retrieve", "delete"):
        return memory(request)
    if operation in ("set_key", "get_key"):
        # One loop for all: the client keeps its connection.
        return runner.run(client(request))
    raise ValueError(f"unknown op {operation!r}")


with asyncio.Runner() as runner:
    lines.serve(["arshai", "redis"], lambda request: answer(runner, request))
