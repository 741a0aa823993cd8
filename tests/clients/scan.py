"""redis-py: iterating over keys. Arguments: host, port."""

import sys

import redis

r = redis.Redis(host=sys.argv[1], port=int(sys.argv[2]), decode_responses=True)

expected = {f"user:{i}" for i in range(3_000)}
r.mset({k: 1 for k in expected})
r.mset({f"other:{i}": 1 for i in range(500)})

assert {k for k in r.scan_iter()} == expected | {f"other:{i}" for i in range(500)}
assert {k for k in r.scan_iter(match="user:*", count=100)} == expected
assert {k for k in r.scan_iter(match="user:1?")} == {f"user:1{i}" for i in range(10)}
assert {k for k in r.scan_iter(_type="string", match="other:*")} == {f"other:{i}" for i in range(500)}
assert list(r.scan_iter(_type="list")) == []
assert set(r.keys("user:29[0-4]?")) == {f"user:29{i}{j}" for i in range(5) for j in range(10)}

# Keys that are there all the time are found whatever else comes and goes.
found = set()
for at, key in enumerate(r.scan_iter(match="user:*", count=10)):
    found.add(key)
    if at % 10 == 0:
        r.set(f"late:{at}", 1)
        r.delete(f"other:{at % 500}")
assert found == expected, expected - found

assert r.randomkey() is not None
r.flushdb()
assert r.randomkey() is None
assert list(r.scan_iter()) == []
