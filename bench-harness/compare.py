#!/usr/bin/env python3
"""First figures: haypile beside redis-server, as server CPU per operation, in one interleaved run.

Both servers run pinned to one CPU, redis-benchmark to the others; runs alternate A B A B, and the
median of the rounds counts. CPU time is read from /proc/PID/stat before and after each run, threads
included, so that what a server does in the background is charged to it.

    python3 bench-harness/compare.py --haypile PATH [--rounds 5] [--keys 1000000] [--out FILE.json]
"""
import argparse, json, os, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def cpu_seconds(pid):
    # utime and stime of all threads, ended ones included.
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def wait_ready(port):
    for _ in range(600):
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as s:
                s.sendall(b"PING\r\n")
                if s.recv(16).startswith(b"+PONG"):
                    return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"nothing answers on port {port}")


def redis(cpu, directory, port):
    args = ["redis-server", "--port", str(port), "--dir", directory, "--save", "", "--appendonly", "yes",
            "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"]
    return subprocess.Popen(["taskset", "-c", str(cpu)] + args, stdout=subprocess.DEVNULL)


def haypile(binary, directory, port, cpu, extra):
    args = [binary, "server", "--port", str(port), "--data-dir", directory, "--cores", "1", "--shards", "1",
            "--pin-cpus", str(cpu), "--appendfsync", "everysec"] + extra
    return subprocess.Popen(args, stderr=open(directory + ".log", "w"))


def run(server, client_cpus, test, pipeline, keys, count):
    before = cpu_seconds(server["pid"])
    started = time.monotonic()
    args = ["taskset", "-c", client_cpus, "redis-benchmark", "-p", str(server["port"]), "-t", test, "-c", "50",
            "-n", str(count), "-d", "128", "-r", str(keys), "-P", str(pipeline), "--csv"]
    out = subprocess.run(args, check=True, capture_output=True, text=True).stdout
    elapsed = time.monotonic() - started
    used = cpu_seconds(server["pid"]) - before
    fields = [f.strip('"') for f in out.strip().splitlines()[-1].split(",")]
    return {"cpu_us": used / count * 1e6, "ops_s": count / elapsed, "p50_ms": float(fields[4]), "p99_ms": float(fields[6])}


def fill(server, client_cpus, keys):
    # Every key once, in the name form that redis-benchmark asks for.
    with socket.create_connection(("127.0.0.1", server["port"])) as s:
        value = b"x" * 128
        for first in range(0, keys, 500):
            batch = b"".join(b"*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$128\r\n%s\r\n" % (n, value)
                             for n in range(first, min(first + 500, keys)))
            s.sendall(batch)
            need, got = 5 * min(500, keys - first), 0
            while got < need:
                got += len(s.recv(65536))


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--haypile", required=True)
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--keys", type=int, default=1_000_000)
    ask.add_argument("--count", type=int, default=400_000)
    ask.add_argument("--hot", type=int, default=100_000, help="GET asks for this many of the keys")
    ask.add_argument("--cpu", type=int, default=0, help="the servers' CPU; clients run on all others")
    ask.add_argument("--extra", default="", help="more arguments for haypile")
    ask.add_argument("--only", default="")
    ask.add_argument("--out")
    opt = ask.parse_args()
    others = ",".join(str(c) for c in sorted(os.sched_getaffinity(0)) if c != opt.cpu)
    base = tempfile.mkdtemp(prefix="haypile-compare-")
    servers, children = {}, []
    try:
        for name in ("redis", "haypile"):
            directory = os.path.join(base, name)
            os.mkdir(directory)
            port = free_port()
            child = redis(opt.cpu, directory, port) if name == "redis" else \
                haypile(opt.haypile, os.path.join(directory, "data"), port, opt.cpu, opt.extra.split())
            children.append(child)
            servers[name] = {"pid": child.pid, "port": port}
            wait_ready(port)
            fill(servers[name], others, opt.keys)
        time.sleep(3)
        cases = [("get", 1, opt.hot), ("set", 1, opt.keys), ("get", 16, opt.hot), ("set", 16, opt.keys)]
        result = {}
        for test, pipeline, keys in cases:
            name = f"{test.upper()} P{pipeline}"
            if opt.only and opt.only not in name:
                continue
            count = opt.count * (4 if pipeline > 1 else 1)
            runs = {"redis": [], "haypile": []}
            for _ in range(opt.rounds):
                for server in ("redis", "haypile"):
                    runs[server].append(run(servers[server], others, test, pipeline, keys, count))
            median = {s: {k: statistics.median(r[k] for r in rs) for k in rs[0]} for s, rs in runs.items()}
            ratios = [h["cpu_us"] / r["cpu_us"] for h, r in zip(runs["haypile"], runs["redis"])]
            result[name] = {"median": median, "cpu_ratio": statistics.median(ratios), "ratios": ratios}
            print(f"{name:8} cpu/op redis {median['redis']['cpu_us']:.2f} us, haypile {median['haypile']['cpu_us']:.2f} us, "
                  f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f}); "
                  f"ops/s {median['redis']['ops_s']:.0f} / {median['haypile']['ops_s']:.0f}; "
                  f"p99 {median['redis']['p99_ms']:.2f} / {median['haypile']['p99_ms']:.2f} ms", flush=True)
        if opt.out:
            json.dump(result, open(opt.out, "w"), indent=1)
    finally:
        for child in children:
            child.send_signal(signal.SIGTERM)
        for child in children:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
