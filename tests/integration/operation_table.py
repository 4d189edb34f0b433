"""A small real call for every line that the wrappers declare.

`test_operations` makes each call twice, on motorlike and on the application's
own PyMongo, and compares what came back and what is on the server.

Rule: an entry is written once and serves both: the target is a wrapper or
PyMongo's own object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bson import DBRef
from pymongo import DeleteOne, IndexModel, InsertOne, ReadPreference, UpdateOne, WriteConcern
from pymongo.driver_info import DriverInfo
from pymongo.operations import SearchIndexModel

__all__ = [
    "CLIENT",
    "COLLECTION",
    "COMMAND_CURSOR",
    "CURSOR",
    "DATABASE",
    "SESSION",
    "Call",
    "seed",
]

Call = Callable[[Any], Any]


def seed(database: Any) -> None:
    """Put the data that the calls work on into *database*, a synchronous one."""
    for name in database.list_collection_names():
        database.drop_collection(name)
    database.items.insert_many([{"_id": i, "n": i % 3, "text": f"item {i}"} for i in range(10)])
    database.items.create_index("n", name="by_n")
    database.others.insert_one({"_id": 1})


def get(name: str) -> Call:
    return lambda target: getattr(target, name)


def call(name: str, *args: Any, **kwargs: Any) -> Call:
    return lambda target: getattr(target, name)(*args, **kwargs)


def _bulk_namespace(client: Any) -> Any:
    return client.bulk_write([InsertOne({"_id": 50}, namespace="test.items")])


CLIENT: dict[str, Call] = {
    **{
        name: get(name)
        for name in (
            *("HOST", "PORT", "address", "arbiters", "codec_options", "is_mongos", "is_primary"),
            *("nodes", "primary", "read_concern", "read_preference", "secondaries"),
            *("write_concern",),
        )
    },
    "options": lambda client: client.options.pool_options.max_pool_size,
    "topology_description": lambda client: client.topology_description.topology_type_name,
    "append_metadata": call("append_metadata", DriverInfo("framework", "1.0")),
    "bulk_write": _bulk_namespace,
    "drop_database": call("drop_database", "motorlike_test_gone"),
    "get_database": call("get_database", "db", write_concern=WriteConcern(0)),
    "get_default_database": call("get_default_database", "fallback"),
    "list_database_names": call("list_database_names", filter={"name": "admin"}),
    "list_databases": call("list_databases", filter={"name": "admin"}, nameOnly=True),
    "server_info": call("server_info"),
    "start_session": call("start_session", causal_consistency=True),
    # A server that is not in a replica set refuses: test_change_streams has one.
    "watch": call("watch", max_await_time_ms=10),
}

DATABASE: dict[str, Call] = {
    "aggregate": call("aggregate", [{"$documents": [{"x": 1}, {"x": 2}]}]),
    "codec_options": get("codec_options"),
    "command": call("command", "count", "items"),
    "create_collection": call("create_collection", "made", capped=True, size=4096),
    "cursor_command": call("cursor_command", "find", "items", sort={"_id": 1}, batchSize=3),
    "dereference": call("dereference", DBRef("items", 4)),
    "drop_collection": call("drop_collection", "others"),
    "get_collection": call("get_collection", "items", read_preference=ReadPreference.NEAREST),
    "list_collection_names": call("list_collection_names", filter={"name": "items"}),
    "list_collections": call("list_collections", filter={"name": "items"}, nameOnly=True),
    "name": get("name"),
    "read_concern": get("read_concern"),
    "read_preference": get("read_preference"),
    "validate_collection": call("validate_collection", "items"),
    "watch": call("watch", [{"$match": {}}], max_await_time_ms=10),
    "with_options": call("with_options", write_concern=WriteConcern(1)),
    "write_concern": get("write_concern"),
}

COLLECTION: dict[str, Call] = {
    "aggregate": call(
        "aggregate", [{"$group": {"_id": "$n", "sum": {"$sum": 1}}}, {"$sort": {"_id": 1}}]
    ),
    "aggregate_raw_batches": call("aggregate_raw_batches", [{"$sort": {"_id": 1}}], batchSize=4),
    "bulk_write": call(
        "bulk_write",
        [InsertOne({"_id": 20}), UpdateOne({"_id": 1}, {"$set": {"n": 9}}), DeleteOne({"_id": 2})],
    ),
    "codec_options": get("codec_options"),
    "count_documents": call("count_documents", {"n": 1}),
    "create_index": call("create_index", [("text", 1), ("n", -1)], unique=True),
    "create_indexes": call("create_indexes", [IndexModel("text"), IndexModel([("n", -1)])]),
    # Atlas alone has search indexes: elsewhere the server refuses them.
    "create_search_index": call("create_search_index", SearchIndexModel({"mappings": {}})),
    "create_search_indexes": call("create_search_indexes", [SearchIndexModel({"mappings": {}})]),
    "drop_search_index": call("drop_search_index", "search"),
    "list_search_indexes": call("list_search_indexes"),
    "update_search_index": call("update_search_index", "search", {}),
    "delete_many": call("delete_many", {"n": 0}),
    "delete_one": call("delete_one", {"n": 0}),
    "distinct": call("distinct", "n", {"_id": {"$lt": 2}}),
    "drop": call("drop"),
    "drop_index": call("drop_index", "by_n"),
    "drop_indexes": call("drop_indexes"),
    "estimated_document_count": call("estimated_document_count"),
    "find": call("find", {"n": 1}, {"text": 1}, sort=[("_id", -1)], batch_size=2),
    "find_one": call("find_one", {"n": 2}, sort=[("_id", -1)]),
    "find_one_and_delete": call("find_one_and_delete", {"_id": 3}),
    "find_one_and_replace": call("find_one_and_replace", {"_id": 3}, {"n": 7}),
    "find_one_and_update": call("find_one_and_update", {"_id": 3}, {"$inc": {"n": 1}}),
    "find_raw_batches": call("find_raw_batches", {}, sort=[("_id", 1)], batch_size=4),
    "full_name": get("full_name"),
    "index_information": call("index_information"),
    "insert_many": call("insert_many", [{"_id": 30 + i} for i in range(5)]),
    "insert_one": call("insert_one", {"_id": 30}),
    "list_indexes": call("list_indexes"),
    "name": get("name"),
    "options": call("options"),
    "read_concern": get("read_concern"),
    "read_preference": get("read_preference"),
    "rename": call("rename", "renamed"),
    "replace_one": call("replace_one", {"_id": 3}, {"n": 7}),
    "update_many": call("update_many", {"n": 0}, {"$set": {"seen": True}}),
    "update_one": call("update_one", {"_id": 77}, {"$set": {"n": 1}}, upsert=True),
    "watch": call("watch", [{"$match": {}}], max_await_time_ms=10),
    "with_options": call("with_options", read_preference=ReadPreference.SECONDARY_PREFERRED),
    "write_concern": get("write_concern"),
}

CURSOR: dict[str, Call] = {
    "add_option": call("add_option", 16),
    "address": get("address"),
    "allow_disk_use": call("allow_disk_use", True),
    "batch_size": call("batch_size", 3),
    "collation": call("collation", {"locale": "en"}),
    "comment": call("comment", "seen in the log"),
    "cursor_id": get("cursor_id"),
    "distinct": call("distinct", "n"),
    "explain": lambda cursor: cursor.explain(),
    "hint": call("hint", "by_n"),
    "limit": call("limit", 4),
    "max": lambda cursor: cursor.hint("by_n").max([("n", 2)]),
    "max_await_time_ms": call("max_await_time_ms", 10),
    "max_scan": call("max_scan", 3),
    "max_time_ms": call("max_time_ms", 5000),
    "min": lambda cursor: cursor.hint("by_n").min([("n", 1)]),
    "remove_option": call("remove_option", 16),
    "retrieved": get("retrieved"),
    "session": get("session"),
    "skip": call("skip", 3),
    "sort": call("sort", [("n", 1), ("_id", -1)]),
    "where": call("where", "this._id < 3"),
}

COMMAND_CURSOR: dict[str, Call] = {
    "address": get("address"),
    "batch_size": call("batch_size", 3),
    "cursor_id": lambda cursor: cursor.cursor_id > 0,
    "session": get("session"),
}

SESSION: dict[str, Call] = {
    "abort_transaction": call("abort_transaction"),
    "advance_cluster_time": call("advance_cluster_time", {"clusterTime": 1}),
    "advance_operation_time": call("advance_operation_time", 5),
    "cluster_time": get("cluster_time"),
    "commit_transaction": call("commit_transaction"),
    "end_session": call("end_session"),
    "has_ended": get("has_ended"),
    "in_transaction": get("in_transaction"),
    "operation_time": get("operation_time"),
    "options": lambda session: session.options.causal_consistency,
    "session_id": lambda session: sorted(session.session_id),
}
