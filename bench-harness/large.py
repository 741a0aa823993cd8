#!/usr/bin/env python3
"""Large collections: what rank and index cost at a thousand and at a million members; what a hash of ten million
fields does to a neighbour while it is read whole, and how long its DEL takes.

    python3 bench-harness/large.py --haypile PATH [--fields 10000000] [--seconds 10]
"""
import argparse, os, re, socket, statistics, subprocess, tempfile, threading, time
from beside_redis import free_port, haypile, stop, wait_ready


def cpu_us(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


class Line:
    """A connection of our own, where a client library would be what is measured."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.file = self.socket.makefile("rb")

    def send(self, *words):
        words = [str(word).encode() for word in words]
        parts = [b"*%d\r\n" % len(words)] + [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
        self.socket.sendall(b"".join(parts))

    def line(self, *words):
        self.send(*words)
        return self.file.readline()


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--haypile", required=True)
    ask.add_argument("--fields", type=int, default=10_000_000)
    ask.add_argument("--members", type=int, default=1_000_000)
    ask.add_argument("--seconds", type=int, default=10)
    ask.add_argument("--rounds", type=int, default=3, help="how often the neighbour is measured, alone and beside")
    ask.add_argument("--cpu", type=int, default=0)
    opt = ask.parse_args()
    others = ",".join(str(c) for c in sorted(os.sched_getaffinity(0)) if c != opt.cpu)
    base, port = tempfile.mkdtemp(prefix="haypile-large-"), free_port()
    data = os.path.join(base, "data")
    server = haypile(opt.haypile, data, port, opt.cpu, "everysec", ["--memory-budget", "1GiB"])
    try:
        wait_ready(port)

        def bench(*args):
            run = subprocess.run(["taskset", "-c", others, opt.haypile, "bench", "-p", str(port)] + list(args),
                                 check=True, capture_output=True, text=True)
            return run.stdout

        def cost(count, *command):
            before = cpu_us(server.pid)
            bench("-r", str(opt.members), "-n", str(count), "-q", "--", *command)
            return (cpu_us(server.pid) - before) / count

        # Scores and members are drawn in turn, so the members are the odd numbers.
        for name, members in (("small", 1000), ("large", opt.members)):
            bench("-r", str(2 * members), "-n", str(members), "--keys", "sequential", "-P", "64", "-q", "--",
                  "ZADD", name, "__rand_int__", "member:__rand_int__")
        time.sleep(2)
        members = {name: int(Line(port).line("ZCARD", name)[1:]) for name in ("small", "large")}
        print(f"sorted sets of {members['small']} and {members['large']} members, us of CPU per operation, medians of 5")
        middle = {name: str(count // 2) for name, count in members.items()}
        for what, command in (("ZRANK", lambda name: ("ZRANK", name, "member:%012d" % (members[name] // 2 * 2 + 1))),
                              ("ZRANGE by index", lambda name: ("ZRANGE", name, middle[name], middle[name])),
                              ("ZCOUNT", lambda name: ("ZCOUNT", name, middle[name], "+inf"))):
            costs = {name: [] for name in members}
            for _ in range(5):
                for name in members:
                    costs[name].append(cost(20_000, *command(name)))
            small, large = (statistics.median(costs[name]) for name in ("small", "large"))
            print(f"  {what:16} small {small:6.1f}  large {large:6.1f}  times {large / small:.2f}", flush=True)

        print(f"a hash of {opt.fields} fields", flush=True)
        bench("-r", str(opt.fields), "-n", str(opt.fields), "--keys", "sequential", "-P", "64", "-q", "--",
              "HSET", "huge", "field:__rand_int__", "__data__")
        line = Line(port)
        print("  HLEN", line.line("HLEN", "huge").decode().strip())
        line.line("SET", "neighbour", "v")

        def neighbour():
            text = bench("-r", "1", "-c", "1", "--seconds", str(opt.seconds), "--rate", "1000", "--", "GET", "neighbour")
            columns = text.splitlines()[-1].split()
            # Behind the name, of two words: operations a second, the mean, p50, p95, p99.
            return float(columns[4]), float(columns[6])

        # What was written is still being compacted, which both measurements would feel in another way.
        busy_until = time.monotonic() + 120
        while time.monotonic() < busy_until:
            before = cpu_us(server.pid)
            time.sleep(1)
            if cpu_us(server.pid) - before < 50_000:
                break
        def read_whole(enough):
            # It shares a CPU with the load, which must not wait for it.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
            own = Line(port)
            own.send("HGETALL", "huge")
            while not enough.is_set() and (part := own.socket.recv(1 << 20)):
                bytes_read[0] += len(part)
            own.socket.close()

        def resident():
            return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{server.pid}/status").read())[1]) >> 10

        bytes_read, ratios, most = [0], [], 0
        for _ in range(opt.rounds):
            alone, enough = neighbour(), threading.Event()
            reader = threading.Thread(target=read_whole, args=(enough,), daemon=True)
            reader.start()
            time.sleep(0.5)
            beside = neighbour()
            most = max(most, resident())
            enough.set()
            reader.join(5)
            ratios.append([b / a for a, b in zip(alone, beside)])
            print("  neighbour, ms: alone p50 %.2f p99 %.2f, beside HGETALL p50 %.2f p99 %.2f" % (*alone, *beside), flush=True)
        print("  times as long, medians: p50 %.2f p99 %.2f" % tuple(map(statistics.median, zip(*ratios))))
        print(f"  resident {most} MiB of a budget of 1024 while {bytes_read[0] >> 20} MiB of HGETALL were read", flush=True)

        def disk():
            return sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(data) for f in files
                       if f.endswith(".sst")) >> 20

        before = disk()
        began = time.perf_counter()
        reply = line.line("DEL", "huge")
        took_ms = (time.perf_counter() - began) * 1000
        print(f"  DEL {reply.decode().strip()} in {took_ms:.2f} ms; tables hold {before} MiB", flush=True)
    finally:
        stop([server], base, 60)


if __name__ == "__main__":
    main()
