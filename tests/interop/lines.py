"""How the scripts of this folder are spoken to: one JSON request a line, {"op": …, …}, and one answer to each,
{"ok": …} or {"error": type, "message": …}. The first line names the versions of the packages.

To be imported before anything that prints: whatever packages print must not come between the answers.
"""

import importlib.metadata
import json
import sys

answers, sys.stdout = sys.stdout, sys.stderr


def write(line):
    print(json.dumps(line), file=answers, flush=True)


def serve(packages, answer):
    write({package: importlib.metadata.version(package) for package in packages})
    for line in sys.stdin:
        try:
            write({"ok": answer(json.loads(line))})
        except Exception as error:
            write({"error": type(error).__name__, "message": str(error)})
