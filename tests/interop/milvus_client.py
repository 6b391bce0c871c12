"""The real MilvusClient of Python arshai, and pymilvus, for tests of collections that both sides use.

Spoken to as lines.py says. MILVUS_HOST, MILVUS_PORT and MILVUS_DB_NAME say which Milvus. Through arshai:

    get_or_create_collection, get_collection_stats   config
    insert_entity                                    config, entity, embedding
    insert_entities                                  config, entities, embedding
    query_by_expr                                    config, expr, output_fields, consistency_level
    search_by_vector                                 config, query_vectors, search_field, expr, output_fields, limit
    hybrid_search                                    config, dense_vectors, sparse_vectors, expr, output_fields, limit
    delete_entity                                    config, filter_expr

A config is the fields of ICollectionConfig; its schema_model is a list of field names, each with a type of TYPES. Through
pymilvus, on a collection made by whomever:

    describe, drop                                   collection
    insert                                           collection, rows
    query                                            collection, expr, output_fields
    search                                           collection, field, vectors, expr, output_fields, limit
    delete                                           collection, expr

Sparse vectors are objects. {"$uuid": text} and {"$datetime": text} are values that JSON has no word for.
"""

import lines

from datetime import datetime
from typing import Dict, List, Optional
from uuid import UUID

from arshai.core.interfaces.idto import IDTO
from arshai.core.interfaces.ivector_db_client import ICollectionConfig
from arshai.vector_db.milvus_client import MilvusClient
from pymilvus import Collection, connections, utility

TYPES = {
    "str": str, "int": int, "float": float, "bool": bool, "dict": dict, "list": list, "uuid": UUID,
    "datetime": datetime, "optional": Optional[str], "list_of_str": List[str], "dict_of_int": Dict[str, int],
}

client = MilvusClient()


def python_value(value):
    """A JSON value as the application would have it."""
    if isinstance(value, list):
        return [python_value(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$uuid" in value:
        return UUID(value["$uuid"])
    if "$datetime" in value:
        return datetime.fromisoformat(value["$datetime"])
    return {key: python_value(item) for key, item in value.items()}


def collection_config(config):
    fields = config.pop("schema_model", None)
    if fields is not None:
        annotations = {name: TYPES[kind] for name, kind in fields}
        config["schema_model"] = type("Model", (IDTO,), {"__annotations__": annotations})
    return ICollectionConfig(**config)


def vector(value):
    return {int(index): float(weight) for index, weight in value.items()} if isinstance(value, dict) else value


def vectors(values):
    return [vector(value) for value in values]


def embedding(value, convert):
    return {kind: convert(vectors) for kind, vectors in value.items()}


def hits(found):
    """One list of hits for each query vector."""
    return [[{"id": hit.id, "score": hit.distance, "fields": dict(hit.fields)} for hit in each] for each in found]


def described(collection):
    fields = [
        {
            "name": field.name, "type": field.dtype.name, "params": field.params,
            "primary": field.is_primary, "auto_id": field.auto_id,
        }
        for field in collection.schema.fields
    ]
    indexes = {index.field_name: index.params for index in collection.indexes}
    return {"fields": fields, "indexes": indexes, "dynamic": collection.schema.enable_dynamic_field}


def through_arshai(operation, config, request):
    config = collection_config(config)
    if operation == "get_or_create_collection":
        return described(client.get_or_create_collection(config))
    if operation == "get_collection_stats":
        return client.get_collection_stats(config)["num_entities"]
    if operation == "insert_entity":
        return client.insert_entity(config, request["entity"], embedding(request["embedding"], vector))
    if operation == "insert_entities":
        return client.insert_entities(config, request["entities"], embedding(request["embedding"], vectors))
    if operation == "query_by_expr":
        return [dict(row) for row in client.query_by_expr(config, **request)]
    if operation == "search_by_vector":
        request["query_vectors"] = vectors(request["query_vectors"])
        return hits(client.search_by_vector(config, **request))
    if operation == "hybrid_search":
        for kind in ("dense_vectors", "sparse_vectors"):
            request[kind] = vectors(request[kind])
        return hits(client.hybrid_search(config, **request))
    if operation == "delete_entity":
        return client.delete_entity(config, **request).delete_count
    raise ValueError(f"unknown op {operation!r}")


def through_pymilvus(operation, name, request):
    if operation == "drop":
        return utility.drop_collection(name)
    collection = Collection(name)
    if operation == "describe":
        return described(collection)
    if operation == "insert":
        rows = [{key: vector(value) if key == "sparse_vector" else value for key, value in row.items()} for row in request["rows"]]
        return list(collection.insert(rows).primary_keys)
    collection.load()
    if operation == "query":
        return [dict(row) for row in collection.query(**request, consistency_level="Strong")]
    if operation == "search":
        field, data = request.pop("field"), vectors(request.pop("vectors"))
        return hits(collection.search(data, field, {"metric_type": "IP"}, **request, consistency_level="Strong"))
    if operation == "delete":
        return collection.delete(request["expr"]).delete_count
    raise ValueError(f"unknown op {operation!r}")


def answer(request):
    operation = request.pop("op")
    if "config" in request:
        return through_arshai(operation, request.pop("config"), python_value(request))
    return through_pymilvus(operation, request.pop("collection"), python_value(request))


connections.connect(host=client.host, port=client.port, db_name=client.db_name)
lines.serve(["arshai", "pymilvus"], answer)
