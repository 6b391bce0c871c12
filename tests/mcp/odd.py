"""A server of the earlier era without any package, that is odd in the way its first argument names."""

import json
import os
import signal
import subprocess
import sys
import time

oddity = sys.argv[1]
group = {"start_new_session": True} if oddity == "leaves_its_group" else {}


def answer(request, result):
    if oddity == "chatty":
        os.write(1, b"Server started!\n{\"level\": \"info\"}\n\xff\xfe\n[]\n{\n\n")
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)


def call(name):
    if name == "pid":
        return str(os.getpid())
    if name == "fork":
        # Holds this process's pipes.
        return str(subprocess.Popen(["sleep", "600"], **group).pid)
    if name == "exit":
        os._exit(3)
    if name == "deafen":
        time.sleep(600)
    if name == "close":
        os.close(1)
        time.sleep(600)
    return "done"


if oddity == "ignores_the_end":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if oddity == "floods_stderr":
    os.write(2, b"x" * (4 << 20))
    for _ in range(10_000):
        os.write(2, b"noise\n" * 100)

for line in sys.stdin:
    request = json.loads(line)
    method = request.get("method")
    if method == "server/discover":
        if oddity == "exits_when_probed":
            os._exit(1)
        if oddity == "answers_nothing_when_probed":
            answer(request, {})
            continue
        if oddity == "mute_when_probed":
            continue
        error = {"code": -32601, "message": "Method not found"}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}), flush=True)
    elif method == "initialize":
        info = {"name": "odd", "version": "1"}
        version = request["params"]["protocolVersion"]
        answer(request, {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info})
    elif method == "tools/list":
        answer(request, {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("pid", "fork", "exit", "deafen", "close")]})
    elif method == "tools/call":
        answer(request, {"content": [{"type": "text", "text": call(request["params"]["name"])}]})
    elif "id" in request:
        answer(request, {})

if oddity == "ignores_the_end":
    time.sleep(600)
