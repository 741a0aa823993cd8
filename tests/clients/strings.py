"""redis-py: the string and key commands of everyday use. Arguments: host, port."""

import sys

import redis

r = redis.Redis(host=sys.argv[1], port=int(sys.argv[2]))

assert r.ping() is True
assert r.set("k", b"\x00\xff\r\n") is True
assert r.get("k") == b"\x00\xff\r\n"
assert r.get("none") is None
assert r.set("k", "w", nx=True) is None
assert r.set("k", "w", xx=True, get=True) == b"\x00\xff\r\n"
assert r.getset("k", "x") == b"w"
assert r.append("k", "yz") == 3
assert r.strlen("k") == 3
assert r.getrange("k", 0, -2) == b"xy"
assert r.setrange("k", 5, "!") == 6
assert r.get("k") == b"xyz\x00\x00!"
assert r.getdel("k") == b"xyz\x00\x00!"
assert r.exists("k") == 0

assert r.incr("n") == 1
assert r.incr("n", 41) == 42
assert r.decr("n", 2) == 40
assert r.incrbyfloat("n", 0.5) == 40.5
try:
    r.incr("n")
    raise AssertionError("a float was incremented as an integer")
except redis.ResponseError as e:
    assert str(e) == "value is not an integer or out of range", e

assert r.mset({"a": 1, "b": 2, "c": 3}) is True
assert r.mget("a", "none", "c") == [b"1", None, b"3"]
assert r.msetnx({"c": 4, "d": 4}) is False
assert r.exists("a", "b", "c", "d") == 3
assert r.rename("a", "e") is True
assert r.renamenx("e", "b") is False
assert r.copy("e", "f") is True
assert r.type("f") == b"string"
assert r.object("encoding", "f") == b"int"
assert sorted(r.keys()) == [b"b", b"c", b"e", b"f", b"n"]
assert r.touch("b", "c", "none") == 2
assert r.unlink("b", "none") == 1
assert r.delete("c", "e") == 2

big = bytes(range(256)) * 4096
assert r.set("big", big) is True
assert r.get("big") == big
assert r.getrange("big", 65530, 65545) == big[65530:65546]

other = redis.Redis(host=sys.argv[1], port=int(sys.argv[2]), db=3)
assert other.get("f") is None
assert r.move("f", 3) is True
assert other.get("f") == b"1"
assert other.flushdb() is True
assert other.keys() == []
assert r.exists("big") == 1
assert r.flushall() is True
assert r.keys() == []
