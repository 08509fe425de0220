"""What an application does with aetcd, over gRPC. Prints what it sees, which is to be the same from every server."""

import asyncio
import io
import sys

import aetcd


def show(what, *values):
    print(what, *values, flush=True)


def pairs(answer):
    return [(kv.key, kv.value, kv.version, kv.lease != 0) for kv in answer]


async def keys(client):
    await client.put(b"a", b"1")
    before = await client.put(b"a", b"2", prev_kv=True)
    show("put", before.prev_kv.value)
    for n in range(5):
        await client.put(b"p/%d" % n, b"%d" % (5 - n))
    got = await client.get(b"a")
    show("get", got.value, got.create_revision, got.mod_revision, got.version)
    show("absent", await client.get(b"absent"))
    show("binary", (await client.put(b"\x00\xff", b"\xfe\x00")) is not None, (await client.get(b"\x00\xff")).value)
    show("prefix", pairs(await client.get_prefix(b"p/")))
    show("sorted", pairs(await client.get_prefix(b"p/", sort_order="descend", sort_target="key")))
    show("range", pairs(await client.get_range(b"p/1", b"p/3")))
    show("replace", await client.replace(b"a", b"2", b"3"), await client.replace(b"a", b"2", b"4"))
    show("delete", (await client.delete(b"p/0", prev_kv=True)).prev_kv.value)
    show("delete absent", await client.delete(b"p/0"))
    show("delete prefix", (await client.delete_prefix(b"p/")).deleted)
    show("all", pairs(await client.get_all()))


async def transactions(client):
    t = client.transactions
    done = await client.transaction(
        compare=[t.value(b"a") == b"3", t.version(b"none") == 0, t.mod(b"a") > 1, t.create(b"a") < 100],
        success=[t.put(b"t", b"1"), t.get(b"a"), t.delete(b"none")],
        failure=[t.put(b"never", b"x")],
    )
    show("transaction", done[0], len(done[1]))
    done = await client.transaction(compare=[t.value(b"a") == b"0"], success=[], failure=[t.get(b"t")])
    show("failure", done[0], [[kv[0] for kv in answer] for answer in done[1]])


async def watches(client):
    watch = await client.watch_prefix(b"w/", prev_kv=True)
    events = aiter(watch)

    async def write():
        await client.put(b"w/a", b"1")
        await client.put(b"w/a", b"2")
        await client.delete(b"w/a")

    writer = asyncio.create_task(write())
    for _ in range(3):
        event = await asyncio.wait_for(anext(events), 60)
        show("event", event.kind, event.kv.key, event.kv.value, event.prev_kv.value if event.prev_kv else None)
    await writer
    await watch.cancel()


async def leases(client):
    lease = await client.lease(600)
    await client.put(b"l/a", b"1", lease=lease)
    show("lease", lease.ttl, await lease.keys(), (await client.get(b"l/a")).lease == lease.id)
    show("refresh", (await lease.refresh()).TTL, await lease.remaining_ttl() > 500)
    await lease.revoke()
    show("revoked", await client.get(b"l/a"))


async def locks(client):
    first, second = client.lock(b"mutex", 60), client.lock(b"mutex", 60)
    show("lock", await first.acquire(), await first.is_acquired())
    show("second", await second.acquire(timeout=1))
    show("release", await first.release())
    show("second", await second.acquire(timeout=60), await second.release())


async def cluster(client):
    status = await client.status()
    show("status", status.version, status.leader.id != 0)
    members = [member async for member in client.members()]
    show("members", [(member.name, len(list(member.peer_urls)), len(list(member.client_urls))) for member in members])
    show("alarms", [alarm async for alarm in client.list_alarms()])
    revision = (await client.get(b"a")).header.revision
    await client.compact(revision, physical=True)
    await client.defragment()
    try:
        show("hash", await client.hash() > 0)
    except aetcd.exceptions.InvalidArgumentError as refused:  # aetcd sends no token with this call
        show("hash", refused)
    snapshot = io.BytesIO()
    await client.snapshot(snapshot)
    show("snapshot", snapshot.tell() > 10_000)


async def main(host, port, username, password):
    async with aetcd.Client(host=host, port=int(port), timeout=60, username=username, password=password) as client:
        for part in (keys, transactions, watches, leases, locks, cluster):
            await part(client)


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3] or None, sys.argv[4] or None))
