#!/usr/bin/env python3
"""Does filling as fast as it takes ever make an operation wait, or memory grow beyond its budget?

New keys, one after the other, in a closed loop of 50 connections, for minutes; once a second the server's
resident memory is read. Prints the longest wait, percentiles, and the most memory as a part of the budget.

    python3 bench-harness/fill.py --haypile PATH [--seconds 600] [--budget-mib 512] [--cores 1] [--size 1024]
"""
import argparse, json, os, subprocess, tempfile, threading, time
from beside_redis import free_port, stop, wait_ready


def resident(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * 4096


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--haypile", required=True)
    ask.add_argument("--seconds", type=int, default=600)
    ask.add_argument("--budget-mib", type=int, default=512)
    ask.add_argument("--cores", type=int, default=1)
    ask.add_argument("--size", type=int, default=1024)
    ask.add_argument("--pipeline", type=int, default=1)
    opt = ask.parse_args()
    base, port = tempfile.mkdtemp(prefix="haypile-fill-", dir=os.environ.get("FILL_DIR")), free_port()
    server = subprocess.Popen(
        [opt.haypile, "server", "--port", str(port), "--admin-bind", "", "--data-dir", os.path.join(base, "data"),
         "--cores", str(opt.cores), "--memory-budget", f"{opt.budget_mib}MiB"], stderr=subprocess.DEVNULL)
    try:
        wait_ready(port)
        most, ended = [0], threading.Event()

        def watch():
            while not ended.wait(1):
                most[0] = max(most[0], resident(server.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        out = os.path.join(base, "run.json")
        began = time.time()
        subprocess.run([opt.haypile, "bench", "-p", str(port), "-t", "set", "--keys", "sequential", "-r", "1000000000",
                        "-d", str(opt.size), "--random-values", "-c", "50", "-P", str(opt.pipeline), "--seconds", str(opt.seconds),
                        "--warm-up-s", "0", "-q", "--json", out], check=True)
        ended.set()
        watcher.join()
        test = json.load(open(out))["run"]["outcomes"][0]
        latency = test["latency"]
        print(f"{test['operations']} sets of {opt.size} bytes in {time.time() - began:.0f} s: p50 {latency['p50_us']} us, "
              f"p99 {latency['p99_us']}, p99.9 {latency['p999_us']}, p99.99 {latency['p9999_us']}, longest {latency['max_us'] / 1000:.0f} ms")
        print(f"most memory {most[0] / 2**20:.0f} MiB, {most[0] / 2**20 / opt.budget_mib:.2f} of the budget of {opt.budget_mib} MiB")
        slow = [s for s in test["series"] if s["latency"]["max_us"] > 100_000]
        print(f"{len(slow)} of {len(test['series'])} seconds had an operation that waited more than 100 ms")
    finally:
        stop([server], base, wait_s=90)


if __name__ == "__main__":
    main()
