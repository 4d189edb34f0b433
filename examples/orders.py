"""A small shop, written for Motor: it sells, in transactions, and keeps receipts in GridFS.

Run it with the URI of a replica set, and a database that it may drop:

    python examples/orders.py mongodb://localhost:27017/?replicaSet=rs0 shop

It runs unchanged on Motor. With `motor` replaced by `motorlike` in its
imports, it runs on motorlike, and prints the same.
"""

import asyncio
import json
import sys

import motor
import tornado.httpclient
import tornado.httpserver
import tornado.netutil
import tornado.web
from motor.motor_tornado import MotorClient, MotorCollection, MotorGridFSBucket
from motor.web import GridFSHandler
from pymongo import ASCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError


class SoldOut(Exception):
    """There is not enough of it."""


async def stock(shop):
    """Fill the shelves, and show them in different ways."""
    await shop.items.insert_many([{"_id": name, "left": 5} for name in ("pear", "fig", "plum")])
    try:
        await shop.items.insert_one({"_id": "fig"})
    except DuplicateKeyError:
        print("there is a fig already")
    print("index:", await shop.items.create_index([("left", ASCENDING)]))
    async for item in shop.items.find().sort("_id").limit(2):
        print("item:", item)
    print("all:", await shop.items.find({}, {"left": 0}).sort("_id").to_list(length=10))
    async for group in shop.items.aggregate([{"$group": {"_id": None, "n": {"$sum": "$left"}}}]):
        print("together:", group["n"])
    counted = [shop.items.count_documents({}), shop.items.estimated_document_count()]
    print("counted:", await asyncio.gather(*counted))


async def sell(client, shop, name, count):
    """Take *count* from the shelf and note the order, or neither."""

    async def both(session):
        item = await shop.items.find_one_and_update(
            {"_id": name},
            {"$inc": {"left": -count}},
            session=session,
            return_document=ReturnDocument.AFTER,
        )
        if item["left"] < 0:
            raise SoldOut(name)
        await shop.orders.insert_one({"item": name, "count": count}, session=session)
        return item["left"]

    async with await client.start_session() as session:
        return await session.with_transaction(both)


async def watch_orders(shop, opened):
    """Return what the next two orders are for."""
    ordered = []
    async with shop.orders.watch([{"$match": {"operationType": "insert"}}]) as stream:
        opened.set()
        async for change in stream:
            ordered.append(change["fullDocument"]["item"])
            if len(ordered) == 2:
                break
    return ordered


async def receipts(shop):
    """Write a receipt to GridFS, and read it in pieces."""
    bucket = MotorGridFSBucket(shop, "receipts", chunk_size_bytes=64)
    grid_in = bucket.open_upload_stream("first.txt", metadata={"kind": "receipt"})
    await grid_in.write(b"one fig\n" * 20)
    await grid_in.close()
    grid_out = await bucket.open_download_stream_by_name("first.txt")
    print("receipt:", grid_out.length, grid_out.metadata, await grid_out.readline())
    async for found in bucket.find({"metadata.kind": "receipt"}):
        print("found:", found.filename)


class Item(tornado.web.RequestHandler):
    """Shows one item as JSON."""

    async def get(self, name):
        item = await self.settings["shop"].items.find_one({"_id": name})
        if item is None:
            raise tornado.web.HTTPError(404)
        self.write(item)


class Receipt(GridFSHandler):
    """Serves receipts from their bucket."""


async def serve(shop):
    """Ask a server of our own for an item and a receipt."""
    routes = [
        (r"/items/(\w+)", Item),
        (r"/receipts/(.+)", Receipt, {"database": shop, "root_collection": "receipts"}),
    ]
    server = tornado.httpserver.HTTPServer(tornado.web.Application(routes, shop=shop))
    (socket,) = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server.add_sockets([socket])
    url = f"http://127.0.0.1:{socket.getsockname()[1]}"
    http = tornado.httpclient.AsyncHTTPClient()
    print("served:", json.loads((await http.fetch(f"{url}/items/fig")).body))
    answer = await http.fetch(f"{url}/receipts/first.txt")
    print("served:", answer.headers["Content-Type"], len(answer.body))
    http.close()
    server.stop()
    await server.close_all_connections()


async def main(uri, name):
    client = motor.MotorClient(uri)
    assert isinstance(client, MotorClient)
    await client.drop_database(name)
    shop = client[name]
    await shop.create_collection("orders")
    assert isinstance(shop.items, MotorCollection)
    await stock(shop)
    opened = asyncio.Event()
    watching = asyncio.ensure_future(watch_orders(shop, opened))
    await opened.wait()
    print("figs left:", await sell(client, shop, "fig", 3))
    try:
        await sell(client, shop, "fig", 3)
    except SoldOut as exc:
        print("sold out:", exc)
    print("plums left:", await sell(client, shop, "plum", 1))
    print("ordered:", await watching)
    await receipts(shop)
    await serve(shop)
    print("orders:", [order["item"] async for order in shop.orders.find().sort("_id")])
    await client.drop_database(name)
    client.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
