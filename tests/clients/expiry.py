"""redis-py: lifetimes. Arguments: host, port."""

import datetime
import sys
import time

import redis

r = redis.Redis(host=sys.argv[1], port=int(sys.argv[2]))

r.set("k", "v", ex=100)
assert 98 <= r.ttl("k") <= 100
assert 98_000 <= r.pttl("k") <= 100_000
assert r.persist("k") is True
assert r.ttl("k") == -1
assert r.ttl("none") == -2
assert r.expire("k", datetime.timedelta(hours=1)) is True
assert 3598 <= r.ttl("k") <= 3600
assert r.expire("k", 50, gt=True) is False
assert r.expire("k", 50, lt=True) is True
assert r.expire("k", 50, nx=True) is False
r.set("k", "w", keepttl=True)
assert 48 <= r.ttl("k") <= 50
r.set("k", "w")
assert r.ttl("k") == -1
at = int(time.time()) + 1000
assert r.expireat("k", at) is True
assert r.expiretime("k") == at
assert r.pexpiretime("k") == at * 1000
assert r.getex("k", px=20) == b"w"
time.sleep(0.05)
assert r.get("k") is None
assert r.exists("k") == 0
r.psetex("p", 20, "v")
r.setex("s", 1, "v")
assert r.get("s") == b"v"
time.sleep(0.05)
assert r.keys() == [b"s"]
time.sleep(1.0)
assert r.keys() == []
r.set("k", "v")
assert r.expire("k", -1) is True
assert r.exists("k") == 0
