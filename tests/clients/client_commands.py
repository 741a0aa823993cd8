"""redis-py: CLIENT, CONFIG, INFO, COMMAND and what else a client asks about the server. Arguments: host, port."""

import sys

import redis

HOST, PORT = sys.argv[1], int(sys.argv[2])
r = redis.Redis(host=HOST, port=PORT, single_connection_client=True, client_name="checker")

own = r.client_id()
assert own > 0
assert r.client_getname() in ("checker", b"checker")
assert r.client_setname("renamed") is True
info = r.client_info()
assert info["name"] == "renamed" and int(info["id"]) == own, info
assert info["addr"].startswith(HOST + ":") and info["laddr"] == f"{HOST}:{PORT}", info

other = redis.Redis(host=HOST, port=PORT, single_connection_client=True)
victim = other.client_id()
listed = {int(c["id"]) for c in r.client_list()}
assert {own, victim} <= listed, listed
assert [int(c["id"]) for c in r.client_list(client_id=[victim])] == [victim]
assert r.client_kill_filter(_id=str(victim)) == 1
assert victim not in {int(c["id"]) for c in r.client_list()}
try:
    r.client_setname("with space")
    raise AssertionError("a name with a space was taken")
except redis.ResponseError as e:
    assert "cannot contain spaces" in str(e), e

server = r.info("server")
assert server["tcp_port"] == PORT, server
assert "redis_version" in server and "run_id" in server
assert r.info("replication")["role"] == "master"
assert "used_memory" in r.info("memory")
assert {"redis_version", "used_memory", "role", "connected_clients"} <= r.info().keys()
r.set("k", "v")
assert "db0" in r.info("keyspace")

assert r.config_get("appendfsync")["appendfsync"] in ("always", "everysec", "no")
assert r.config_set("timeout", 100) is True
assert r.config_get("timeout") == {"timeout": "100"}
try:
    r.config_set("no-such-parameter", 1)
    raise AssertionError("an unknown parameter was set")
except redis.ResponseError as e:
    assert "Unknown option or number of arguments for CONFIG SET - 'no-such-parameter'" in str(e), e

assert r.command_count() > 50
assert r.command()["get"]["arity"] == 2
assert r.command_getkeys("MSET", "a", 1, "b", 2) in (["a", "b"], [b"a", b"b"])
seconds, micros = r.time()
assert seconds > 1_600_000_000 and 0 <= micros < 1_000_000
assert r.echo("hi") == b"hi"
assert r.dbsize() >= 0
assert r.lastsave() is not None
