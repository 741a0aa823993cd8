#!/usr/bin/env python3
"""What following costs: the primary's CPU per write with and without a follower, how far a follower is behind at a
fixed rate, how fast it applies what it missed, and how fast a copy is.

    python3 bench-harness/replication.py --haypile PATH [--rounds 3] [--count 200000] [--rate 10000]
"""
import argparse, os, statistics, subprocess, tempfile, time
from beside_redis import free_port, stop, wait_ready
from large import Line, cpu_us


def replication(port):
    line = Line(port)
    line.send("INFO", "replication")
    text = line.file.read(int(line.file.readline()[1:]))
    return dict(field.split(":", 1) for field in text.decode().split("\r\n") if ":" in field)


def wait_until(what, holds, patience_s=300):
    until = time.time() + patience_s
    while not holds():
        assert time.time() < until, what
        time.sleep(0.01)


# A log that has all that is written meanwhile.
LONG = ["--binlog-retention-bytes", "4GiB"]


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--haypile", required=True)
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--count", type=int, default=200_000)
    ask.add_argument("--rate", type=int, default=10_000)
    ask.add_argument("--size", type=int, default=128)
    opt = ask.parse_args()
    base, ports = tempfile.mkdtemp(prefix="haypile-replication-"), [free_port(), free_port()]

    def start(at, *args):
        server = subprocess.Popen(
            [opt.haypile, "server", "--port", str(ports[at]), "--admin-bind", "", "--cores", "1", "--memory-budget",
             "1GiB", "--data-dir", os.path.join(base, str(at)), *args], stderr=subprocess.DEVNULL)
        wait_ready(ports[at])
        return server

    def copy(keys, size):
        """Of what no log holds any more; each node's core has a CPU to itself."""
        short = ["--binlog-retention-bytes", "1MiB", "--binlog-segment-bytes", "4MiB"]
        servers = [start(at, *short, "--pin-cpus", str(at)) for at in (0, 1)]
        bench("-r", str(keys), "-n", str(keys), "--keys", "sequential", "-P", "64", size=size)
        time.sleep(4)
        began, cpu = time.time(), [cpu_us(server.pid) for server in servers]
        follow(True)
        took, bytes = time.time() - began, keys * size
        cpu = [(cpu_us(server.pid) - before) / 1e6 for server, before in zip(servers, cpu)]
        assert replication(ports[0])["copies_begun"] != "0"
        print(f"copy of {keys} keys of {size} bytes: {took:.1f} s, {bytes / took / 2**20:.0f} MiB/s of values; "
              f"CPU: {cpu[0]:.2f} s the primary's, {cpu[1]:.2f} the follower's")
        for at in (1, 0):
            stop([servers.pop()], os.path.join(base, str(at)))

    def bench(*args, size=opt.size):
        subprocess.run([opt.haypile, "bench", "-p", str(ports[0]), "-t", "set", "-d", str(size), "-c", "50", "-q",
                        "--warm-up-s", "0", *args], check=True, capture_output=True)

    def follow(on):
        Line(ports[1]).line("REPLICAOF", *(("127.0.0.1", ports[0]) if on else ("NO", "ONE")))
        if on:
            wait_until("the link is up", lambda: replication(ports[1]).get("master_link_status") == "up")
            wait_until("it has caught up", caught_up)

    def caught_up():
        return replication(ports[1])["slave_repl_offset"] == replication(ports[0])["master_repl_offset"]

    servers = []
    try:
        copy(3_000_000, 128)
        copy(900_000, 1024)
        servers += [start(at, *LONG) for at in (0, 1)]
        primary, follower = servers
        bench("-r", "1000000", "-n", "1000000", "--keys", "sequential", "-P", "64")
        follow(True)
        for pipeline in (1, 16):
            ratios, costs = [], []
            for _ in range(opt.rounds):
                cost = {}
                for on in (False, True):
                    follow(on)
                    before, follower_before = cpu_us(primary.pid), cpu_us(follower.pid)
                    bench("-r", "1000000", "-n", str(opt.count), "-P", str(pipeline))
                    if on:
                        wait_until("it has caught up", caught_up)
                        costs.append((cpu_us(follower.pid) - follower_before) / opt.count)
                    cost[on] = (cpu_us(primary.pid) - before) / opt.count
                ratios.append(cost[True] / cost[False])
            print(f"SET pipeline {pipeline}: the primary's CPU per write with a follower {statistics.median(ratios):.2f} "
                  f"({min(ratios):.2f} to {max(ratios):.2f}) times that without; the follower's {statistics.median(costs):.2f} us")
        follow(True)
        lags = []
        load = subprocess.Popen([opt.haypile, "bench", "-p", str(ports[0]), "-t", "set", "-r", "1000000", "-c", "50", "-q",
                                 "--rate", str(opt.rate), "--seconds", "10"], stdout=subprocess.DEVNULL)
        while load.poll() is None:
            line, began = Line(ports[0]), time.time()
            line.line("SET", "lag", "x")
            line.line("WAIT", "1", "1000")
            lags.append((time.time() - began) * 1000)
            time.sleep(0.01)
        lags.sort()
        print(f"at {opt.rate} writes a second a write is acknowledged by the follower after p50 {lags[len(lags) // 2]:.1f}, "
              f"p99 {lags[len(lags) * 99 // 100]:.1f} ms ({len(lags)} looks)")
        # What a follower missed, sent while the primary has nothing else to do.
        missed = 1_000_000
        stop([servers.pop()], None)
        made = cpu_us(primary.pid)
        began = time.time()
        bench("-r", "1000000", "-n", str(missed), "-P", "64")
        making_s, made = time.time() - began, cpu_us(primary.pid) - made
        servers.append(start(1, *LONG))
        began = time.time()
        follow(True)
        applying_s = time.time() - began
        print(f"{missed} writes made in {making_s:.1f} s ({made / missed:.2f} us of CPU each) are caught up with in {applying_s:.1f} s: "
              f"{making_s / applying_s:.2f} times as fast; copies begun: {replication(ports[0])['copies_begun']}")
    finally:
        stop(servers, base)


if __name__ == "__main__":
    main()
