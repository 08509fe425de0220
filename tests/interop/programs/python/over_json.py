"""What an application does with etcd3gw, over the JSON gateway. Prints what it sees, which is to be the same from every server."""

import sys
import threading

import etcd3gw


def show(what, *values):
    print(what, *values, flush=True)


def keys(client):
    show("put", client.put("a", "1"), client.put("a", "2"))
    show("create", client.create("c", "1"), client.create("c", "2"))
    show("replace", client.replace("c", "1", "3"), client.replace("c", "1", "4"))
    show("get", client.get("a"), client.get("absent"))
    value, metadata = client.get("a", metadata=True)[0]
    show("metadata", value, sorted(metadata), metadata["version"], metadata["mod_revision"])
    for n in range(5):
        client.put(f"p/{n}", str(5 - n))
    show("prefix", [value for value, _ in client.get_prefix("p/")])
    show("sorted", [value for value, _ in client.get_prefix("p/", sort_order="descend", sort_target="value")])
    show("binary", client.put(b"\x00\xff", b"\xfe\x00"), client.get(b"\x00\xff"))
    show("delete", client.delete("p/0"), client.delete("p/0"), client.delete_prefix("p/"))
    show("all", [value for value, _ in client.get_all()])


def transactions(client):
    def b64(text):
        return etcd3gw.utils._encode(text)

    answer = client.transaction({
        "compare": [{"key": b64("a"), "result": "EQUAL", "target": "VALUE", "value": b64("2")}],
        "success": [{"request_put": {"key": b64("t"), "value": b64("1")}}, {"request_range": {"key": b64("a")}}],
        "failure": [],
    })
    show("transaction", answer["succeeded"], [sorted(part) for part in answer["responses"]])
    answer = client.transaction({
        "compare": [{"key": b64("a"), "result": "GREATER", "target": "VERSION", "version": 50}],
        "success": [], "failure": [{"request_delete_range": {"key": b64("t")}}],
    })
    show("failure", answer.get("succeeded", False), answer["responses"][0]["response_delete_range"]["deleted"])


def watches(client):
    start = int(client.status()["header"]["revision"]) + 1
    events, cancel = client.watch_prefix("w/", start_revision=str(start))
    writer = threading.Thread(target=lambda: (client.put("w/a", "1"), client.put("w/a", "2"), client.delete("w/a")))
    writer.start()
    for _ in range(3):
        event = next(events)
        show("event", event.get("type", "PUT"), event["kv"]["key"], event["kv"].get("value"))
    writer.join()
    cancel()


def leases(client):
    lease = client.lease(ttl=600)
    client.put("l/a", "1", lease=lease)
    show("lease", lease.keys(), 500 < lease.ttl() <= 600, lease.refresh())
    show("revoked", lease.revoke(), client.get("l/a"))


def locks(client):
    first, second = client.lock("mutex", ttl=60), client.lock("mutex", ttl=60)
    show("lock", first.acquire(), first.is_acquired(), second.acquire(), second.is_acquired())
    show("release", first.release(), first.is_acquired())
    with second:
        show("second", second.is_acquired(), second.refresh())


def cluster(client):
    status = client.status()
    show("status", sorted(status), status["version"])
    show("members", [sorted(member) for member in client.members()])


def main(host, port):
    client = etcd3gw.client(host=host, port=int(port), timeout=60)
    show("path", client.api_path)
    for part in (keys, transactions, watches, leases, locks, cluster):
        part(client)


main(sys.argv[1], sys.argv[2])
