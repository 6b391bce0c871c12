"""Python arshai's MilvusClient, for the bench `milvus`, which runs this script.

    python milvus_client.py fill ROWS              prints a JSON object of figures
    python milvus_client.py search NAME CALLERS    prints searches a second

MILVUS_HOST, MILVUS_PORT and MILVUS_DB_NAME say which Milvus. Rows are those of benches/milvus/rows.rs.
"""

import json
import logging
import os
import random
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from arshai.core.interfaces.ivector_db_client import ICollectionConfig
from arshai.vector_db.milvus_client import MilvusClient
from pymilvus import Collection, utility

DIM = 384
CALLS_EACH = 4


def config(name):
    return ICollectionConfig(collection_name=name, dense_dim=DIM, text_field="content")


def vector(generator):
    return [generator.random() - 0.5 for _ in range(DIM)]


def fill(rows):
    generator = random.Random(1)
    data = [
        {
            "content": f"Passage {number} of a document, about as long as a sentence that answers a question.",
            "metadata": {"source": f"file-{number % 1000}.md", "page": number % 50},
        }
        for number in range(rows)
    ]
    embedding = {"dense": [vector(generator) for _ in range(rows)]}
    client, name = MilvusClient(), f"python_{os.getpid()}"
    collection = client.get_or_create_collection(config(name))
    collection.load()

    flush, flushing = Collection.flush, []

    def timed_flush(self, *arguments, **named):
        began = time.perf_counter()
        flush(self, *arguments, **named)
        flushing.append(time.perf_counter() - began)

    Collection.flush = timed_flush
    began, cpu = time.perf_counter(), time.process_time()
    client.insert_entities(config(name), data, embedding)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    utility.drop_collection(name)
    return {
        "rate": rows / took,
        "rate_without_flush": rows / (took - sum(flushing)),
        "cpu_micros_per_row": cpu * 1e6 / rows,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def search(name, callers):
    client = MilvusClient()
    client.connect()
    started = threading.Barrier(callers + 1)

    def caller(seed):
        query = [vector(random.Random(seed))]
        started.wait()
        for _ in range(CALLS_EACH):
            assert len(client.search_by_vector(config(name), query, limit=10)[0]) == 10

    with ThreadPoolExecutor(callers) as pool:
        running = [pool.submit(caller, seed) for seed in range(callers)]
        started.wait()
        began = time.perf_counter()
        for each in running:
            each.result()
        return callers * CALLS_EACH / (time.perf_counter() - began)


def main():
    logging.disable(logging.CRITICAL)
    if sys.argv[1] == "fill":
        print(json.dumps(fill(int(sys.argv[2]))))
    else:
        print(search(sys.argv[2], int(sys.argv[3])))


main()
