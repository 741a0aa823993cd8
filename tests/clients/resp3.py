"""redis-py over RESP3. Arguments: host, port."""

import sys

import redis

HOST, PORT = sys.argv[1], int(sys.argv[2])
r = redis.Redis(host=HOST, port=PORT, protocol=3)

hello = r.execute_command("HELLO", 3)
hello = {k.decode() if isinstance(k, bytes) else k: v for k, v in hello.items()}
assert hello["proto"] == 3, hello
assert hello["server"] == b"redis", hello
assert hello["role"] == b"master", hello
assert r.set("k", "v") is True
assert r.get("k") == b"v"
assert r.get("none") is None
assert r.mget("k", "none") == [b"v", None]
assert r.set("k", "w", get=True) == b"v"
assert r.incrbyfloat("f", 1.5) == 1.5
config = r.config_get("databases")
assert config == {"databases": "16"} or config == {b"databases": b"16"}, config
assert isinstance(r.info("server"), dict)
assert isinstance(r.client_info(), dict)
try:
    r.execute_command("HELLO", 4)
    raise AssertionError("HELLO 4 was taken")
except redis.ResponseError as e:
    assert "unsupported protocol version" in str(e), e

# Back to RESP2 on one connection: maps become flat lists.
c = redis.Redis(host=HOST, port=PORT, single_connection_client=True)
flat = c.execute_command("HELLO", 2)
assert isinstance(flat, list) and b"proto" in flat and flat[flat.index(b"proto") + 1] == 2, flat
