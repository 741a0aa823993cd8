"""redis-py's cluster client on a table of 16384 crc16 slots. Arguments: host, port."""

import sys

import redis
from redis.cluster import RedisCluster

r = RedisCluster(host=sys.argv[1], port=int(sys.argv[2]))

for i in range(2_000):
    assert r.set(f"key:{i}", i) is True
for i in range(2_000):
    assert r.get(f"key:{i}") == str(i).encode()
assert r.keyslot("foo") == 12182
assert r.cluster_keyslot("foo") == 12182
assert r.mset({"{t}a": 1, "{t}b": 2}) is True
assert r.mget("{t}a", "{t}b", "{t}c") == [b"1", b"2", None]
assert r.delete("{t}a", "{t}b") == 2

p = r.pipeline()
for i in range(1_000):
    p.get(f"key:{i}")
assert p.execute() == [str(i).encode() for i in range(1_000)]

found = {k for k in r.scan_iter(match="key:*", count=100)}
assert found == {f"key:{i}".encode() for i in range(2_000)}, len(found)

covered = set()
for start, end, *_ in redis.Redis(host=sys.argv[1], port=int(sys.argv[2])).execute_command("CLUSTER SLOTS"):
    if isinstance(start, tuple):
        start, end = start
    covered.update(range(start, end + 1))
assert len(covered) in (0, 16384), len(covered)
info = r.cluster_info(target_nodes=r.get_random_node())
assert info["cluster_state"] == "ok", info
assert int(info["cluster_slots_assigned"]) == 16384, info
