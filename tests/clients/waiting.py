"""redis-py: commands that wait, and replies of many entries. Arguments: host, port."""

import sys
import threading
import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

HOST, PORT = sys.argv[1], int(sys.argv[2])


def client(**options):
    """Never sends a command twice: redis-py does after a timeout, and a second push is not the first."""
    return redis.Redis(host=HOST, port=PORT, socket_timeout=120, retry=Retry(NoBackoff(), 0), **options)


r = client()


class Waiter(threading.Thread):
    """Runs a command on a connection of its own and keeps what it answers."""

    def __init__(self, *command):
        super().__init__(daemon=True)
        self.command, self.reply = command, None
        self.own = client()
        self.id = self.own.client_id()
        self.start()
        deadline = time.time() + 10
        while r.info("clients")["blocked_clients"] == 0 or not self.waits():
            assert time.time() < deadline, f"{command} does not wait"
            time.sleep(0.01)

    def waits(self):
        return any(int(c["id"]) == self.id and c["cmd"] == self.command[0].lower() for c in r.client_list())

    def run(self):
        try:
            self.reply = self.own.execute_command(*self.command)
        except redis.RedisError as error:
            self.reply = error

    def answer(self):
        self.join(10)
        assert not self.is_alive(), f"{self.command} still waits"
        return self.reply


# Woken by a push, whichever core the key is on.
for key in ("q:1", "q:2", "q:3", "q:4"):
    waiter = Waiter("BLPOP", key, 0)
    r.rpush(key, "item")
    assert waiter.answer() == [key.encode(), b"item"] or waiter.reply == (key.encode(), b"item"), waiter.reply
    assert r.exists(key) == 0

# Several keys, on several shards; the one that gets something answers.
waiter = Waiter("BRPOP", "many:a", "many:b", "many:c", "many:d", 0)
r.rpush("many:c", "1", "2")
assert list(waiter.answer()) == [b"many:c", b"2"], waiter.reply
assert r.lrange("many:c", 0, -1) == [b"1"]

# First come, first served.
waiters = []
for _ in range(3):
    waiters.append(Waiter("BLPOP", "fair", 0))
    time.sleep(0.05)
r.rpush("fair", "1", "2", "3")
assert [list(w.answer())[1] for w in waiters] == [b"1", b"2", b"3"], [w.reply for w in waiters]

# Streams: what comes after $ is after what was there when it began to wait; all who wait get it.
r.xadd("stream", {"f": "old"})
readers = [Waiter("XREAD", "BLOCK", 0, "STREAMS", "stream", "$") for _ in range(2)]
new = r.xadd("stream", {"f": "new"})
for reader in readers:
    [[name, [[entry, fields]]]] = reader.answer()
    assert (name, entry) == (b"stream", new), reader.reply
r.xgroup_create("stream", "group", "$")
consumer = Waiter("XREADGROUP", "GROUP", "group", "me", "BLOCK", 0, "STREAMS", "stream", ">")
new = r.xadd("stream", {"f": "newer"})
assert consumer.answer()[0][1][0][0] == new
assert r.xpending("stream", "group")["pending"] == 1
assert r.xread({"stream": "$"}, block=100) in ([], {})

# Sorted sets.
waiter = Waiter("BZPOPMIN", "z:1", "z:2", 0)
r.zadd("z:2", {"b": 2, "a": 1})
assert list(waiter.answer())[:2] == [b"z:2", b"a"], waiter.reply
assert r.zcard("z:2") == 1

# Time ends it.
begun = time.time()
assert r.blpop("none", timeout=0.3) is None
assert 0.25 < time.time() - begun < 5
assert r.execute_command("BLMOVE", "none", "other", "LEFT", "RIGHT", 0.05) is None

# What waits moves on, and what it moves can wake another.
chain = Waiter("BLPOP", "chain:2", 0)
mover = Waiter("BLMOVE", "chain:1", "chain:2", "LEFT", "RIGHT", 0)
r.rpush("chain:1", "x")
assert mover.answer() == b"x" and list(chain.answer()) == [b"chain:2", b"x"]

# A waiting client that goes takes nothing with it.
gone = Waiter("BLPOP", "gone", 0)
gone.own.connection_pool.disconnect()
r.client_kill_filter(_id=gone.id)
time.sleep(0.2)
r.rpush("gone", "kept")
assert r.lrange("gone", 0, -1) == [b"kept"]
assert r.info("clients")["blocked_clients"] == 0

# CLIENT UNBLOCK.
waiter = Waiter("BLPOP", "unblock", 0)
assert r.client_unblock(waiter.id) == 1
assert waiter.answer() is None, waiter.reply
waiter = Waiter("BLPOP", "unblock", 0)
assert r.client_unblock(waiter.id, error=True) == 1
assert isinstance(waiter.answer(), redis.ResponseError) and "UNBLOCKED" in str(waiter.reply)
assert r.client_unblock(waiter.id) == 0

# A key of another type wakes and is an error only where Redis has one: SET does not wake.
waiter = Waiter("BLPOP", "typed", 0.5)
r.set("typed", "v")
assert waiter.answer() is None, waiter.reply

# Replies of many entries arrive whole, in both protocols, and what follows them is in its place.
COUNT = 60_000
p = r.pipeline(transaction=False)
for base in range(0, COUNT, 1000):
    p.hset("long:hash", mapping={f"field:{i}": i for i in range(base, base + 1000)})
    p.rpush("long:list", *range(base, base + 1000))
    p.sadd("long:set", *(f"m{i}" for i in range(base, base + 1000)))
p.execute()
for protocol in (2, 3):
    own = client(protocol=protocol)
    pipe = own.pipeline(transaction=False)
    pipe.hgetall("long:hash").ping().lrange("long:list", 0, -1).hkeys("long:hash").smembers("long:set").get("typed")
    whole, pong, items, fields, members, value = pipe.execute()
    assert pong is True and value == b"v"
    assert whole == {f"field:{i}".encode(): str(i).encode() for i in range(COUNT)}
    assert items == [str(i).encode() for i in range(COUNT)]
    assert set(fields) == set(whole) and len(fields) == COUNT
    assert set(members) == {f"m{i}".encode() for i in range(COUNT)}

r.config_set("reply-max-elements", 1000)
try:
    r.hgetall("long:hash")
    raise AssertionError("more elements than a reply may have")
except redis.ResponseError as error:
    assert "reply-max-elements" in str(error), error
assert len(r.lrange("long:list", 0, 999)) == 1000
r.config_set("reply-max-elements", 0)
