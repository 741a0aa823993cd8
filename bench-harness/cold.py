#!/usr/bin/env python3
"""Does a hot key suffer from its core's cold reads?

One data core pinned to one CPU, the client, the blocking pool and RocksDB's threads on the others. The
data is ten times the memory budget. A background of GETs at a fixed rate, once over all keys (cold) and
once over a few (hot, the control); meanwhile one client asks for one hot key and times each answer.

    python3 bench-harness/cold.py --haypile PATH [--rate 2000] [--seconds 15] [--budget-mib 128] [--rounds 3]
"""
import argparse, os, random, select, socket, statistics, subprocess, sys, tempfile, time
from beside_redis import free_port, stop, wait_ready

VALUE = 1024


def get(n):
    return b"*2\r\n$3\r\nGET\r\n$14\r\nkey:%010d\r\n" % n


def fill(port, keys):
    with socket.create_connection(("127.0.0.1", port)) as s:
        for first in range(0, keys, 256):
            batch = b"".join(b"*3\r\n$3\r\nSET\r\n$14\r\nkey:%010d\r\n$%d\r\n%s\r\n" % (n, VALUE, os.urandom(VALUE))
                             for n in range(first, min(first + 256, keys)))
            s.sendall(batch)
            need, got = 5 * min(256, keys - first), 0
            while got < need:
                got += len(s.recv(65536))


def background(port, rate, seconds, keys):
    """Open loop over 32 connections; run as a process of its own. Prints how many were answered."""
    conns = [socket.create_connection(("127.0.0.1", port)) for _ in range(32)]
    for c in conns:
        c.setblocking(False)
    started, sent, received = time.monotonic(), 0, 0
    while time.monotonic() - started < seconds:
        due = int((time.monotonic() - started) * rate)
        while sent < due:
            conns[sent % 32].send(get(random.randrange(keys)))
            sent += 1
        for c in select.select(conns, [], [], 0.001)[0]:
            received += len(c.recv(1 << 20))
    print(sent, received // (VALUE + 9))


def probe(port, seconds):
    latencies = []
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            began = time.perf_counter()
            s.sendall(get(0))
            got = 0
            while got < VALUE + 9:
                got += len(s.recv(65536))
            latencies.append((time.perf_counter() - began) * 1e6)
            time.sleep(0.0005)
    latencies.sort()
    at = lambda q: latencies[int(len(latencies) * q)]
    return {"n": len(latencies), "p50": at(0.5), "p99": at(0.99), "p999": at(0.999)}


def main():
    if sys.argv[1:2] == ["--background"]:
        return background(*map(int, sys.argv[2:]))
    ask = argparse.ArgumentParser()
    ask.add_argument("--haypile", required=True)
    ask.add_argument("--rate", type=int, default=2000)
    ask.add_argument("--seconds", type=int, default=15)
    ask.add_argument("--budget-mib", type=int, default=128)
    ask.add_argument("--rounds", type=int, default=3)
    opt = ask.parse_args()
    keys = opt.budget_mib * 10 * 1024 * 1024 // VALUE
    others = [c for c in sorted(os.sched_getaffinity(0)) if c != 0]
    os.sched_setaffinity(0, others)
    base, port = tempfile.mkdtemp(prefix="haypile-cold-"), free_port()
    # All CPUs for the server, so that its background threads get those that its core leaves.
    server = subprocess.Popen(
        ["taskset", "-c", "0," + ",".join(map(str, others)), opt.haypile, "server", "--port", str(port), "--data-dir",
         os.path.join(base, "data"), "--cores", "1", "--pin-cpus", "0", "--memory-budget", f"{opt.budget_mib}MiB"],
        stderr=subprocess.DEVNULL)
    try:
        wait_ready(port)
        fill(port, keys)
        time.sleep(10)
        found = {"cold": [], "hot": []}
        for _ in range(opt.rounds):
            for kind, span in (("hot", 64), ("cold", keys)):
                args = [sys.executable, __file__, "--background", str(port), str(opt.rate), str(opt.seconds + 1), str(span)]
                load = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
                time.sleep(0.5)
                result = probe(port, opt.seconds)
                sent, answered = map(int, load.communicate()[0].split())
                found[kind].append(result)
                print(f"{kind:4} background {sent} sent, {answered} answered; hot key n {result['n']}, p50 {result['p50']:.0f}, "
                      f"p99 {result['p99']:.0f}, p99.9 {result['p999']:.0f} us", flush=True)
        ratio = {p: statistics.median(r[p] for r in found["cold"]) / statistics.median(r[p] for r in found["hot"])
                 for p in ("p50", "p99", "p999")}
        print(f"hot key, cold background / hot background: p50 {ratio['p50']:.2f}, p99 {ratio['p99']:.2f}, p99.9 {ratio['p999']:.2f}")
    finally:
        stop([server], base, wait_s=70)


if __name__ == "__main__":
    main()
