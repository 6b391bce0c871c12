"""Becomes the standalone Milvus that the PyPI package `milvus` carries: prepares it, then replaces itself by it.

    python milvus_server.py FOLDER PORTS [KEY=VALUE …]

FOLDER takes the data, the configuration and the logs. PORTS are free loopback ports, comma-separated: the first is
the one that clients use, then those for metrics, for etcd's two listeners and for the parts of Milvus. Each KEY=VALUE
is a setting of the package, such as `authorization_enabled=true`. Nothing but these ports is listened on, so several
servers run beside each other, and what starts this script has the server itself as its child.
"""

import fcntl
import json
import os
import sys

import milvus

PARTS = ("proxy_internal", "root_coord", "query_coord", "query_node", "index_node", "data_coord", "data_node")


def unpack():
    """The package carries its programs compressed; they are unpacked once, beside it."""
    folder = os.path.join(sys.prefix, "unpacked")
    with open(os.path.join(sys.prefix, "unpacked.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        milvus._initialize_data_files(folder)
    return os.path.join(folder, "bin")


def configure(folder, ports, settings):
    config = milvus.MilvusServerConfig(data_dir=folder)
    config.resolve_storage()
    config.set("proxy_port", ports[0])
    for part, port in zip(PARTS, ports[4:], strict=True):
        config.set(part + "_port", port)
    config.set("etcd_port", ports[2])
    for part in ("proxy", "rootCoord", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode"):
        config.set(part + ".ip", "127.0.0.1")
    for setting in settings:
        key, value = setting.split("=", 1)
        kind, _ = config.configurable_items.get(key, (str, None))
        config.set(key, config.get_value(value, kind))
    config.write_config()


def configure_etcd(folder, client, peer):
    client, peer = (f"http://127.0.0.1:{port}" for port in (client, peer))
    path = os.path.join(folder, "configs", "etcd.json")
    with open(path, "w") as file:
        json.dump({
            "name": "default",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }, file)
    return path


def main():
    folder, ports, *settings = sys.argv[1:]
    ports = [int(port) for port in ports.split(",")]
    programs = unpack()
    configure(folder, ports, settings)
    os.chdir(folder)
    environment = {
        **os.environ,
        "DEPLOY_MODE": "STANDALONE",
        "ETCD_CONFIG_PATH": configure_etcd(folder, *ports[2:4]),
        "LD_LIBRARY_PATH": programs,
        "METRICS_PORT": str(ports[1]),
        "MILVUS_RUN_DIR": os.path.join(folder, "run"),
    }
    os.execve(os.path.join(programs, "milvus"), ["milvus", "run", "standalone"], environment)


main()
