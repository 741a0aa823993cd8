"""redis-py: pipelines, deep and from several threads. Arguments: host, port."""

import sys
import threading

import redis

HOST, PORT = sys.argv[1], int(sys.argv[2])
r = redis.Redis(host=HOST, port=PORT)

p = r.pipeline(transaction=False)
for i in range(10_000):
    p.set(f"k:{i}", i)
    p.get(f"k:{i}")
replies = p.execute()
assert replies[0::2] == [True] * 10_000
assert replies[1::2] == [str(i).encode() for i in range(10_000)]

# An error stands in its own place and stops nothing.
p = r.pipeline(transaction=False)
p.set("text", "x").incr("text").set("after", 1).get("after")
ok, error, after, got = p.execute(raise_on_error=False)
assert ok is True and after is True and got == b"1"
assert isinstance(error, redis.ResponseError), error


def count(_):
    own = redis.Redis(host=HOST, port=PORT)
    for _ in range(20):
        p = own.pipeline(transaction=False)
        for _ in range(50):
            p.incr("shared")
        p.execute()


threads = [threading.Thread(target=count, args=(i,)) for i in range(8)]
for t in threads:
    t.start()
for t in threads:
    t.join()
assert r.get("shared") == b"8000", r.get("shared")
