#!/usr/bin/env python3
"""haypile beside redis-server: starts both, each pinned to the same CPU, fills them, and has
`haypile bench compare` load them in turns from the other CPUs.

    python3 bench-harness/beside_redis.py --haypile PATH [--rounds 4] [--keys 1000000] [--out DIRECTORY]
"""
import argparse, os, shutil, signal, socket, subprocess, sys, tempfile, time


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


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


def redis(cpu, directory, port, policy):
    args = ["redis-server", "--port", str(port), "--dir", directory, "--save", "", "--appendonly", "yes",
            "--appendfsync", policy, "--auto-aof-rewrite-percentage", "0"]
    return subprocess.Popen(["taskset", "-c", str(cpu)] + args, stdout=subprocess.DEVNULL)


def haypile(binary, directory, port, cpu, policy, extra):
    args = [binary, "server", "--port", str(port), "--data-dir", directory, "--cores", "1", "--shards", "1",
            "--pin-cpus", str(cpu), "--appendfsync", policy] + extra
    return subprocess.Popen(args, stderr=open(directory + ".log", "w"))


def stop(children, directory, wait_s=20):
    for child in children:
        child.send_signal(signal.SIGTERM)
    for child in children:
        try:
            child.wait(wait_s)
        except subprocess.TimeoutExpired:
            child.kill()
    shutil.rmtree(directory, ignore_errors=True)


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--haypile", required=True)
    ask.add_argument("--rounds", type=int, default=4)
    ask.add_argument("--keys", type=int, default=1_000_000)
    ask.add_argument("--count", type=int, default=250_000, help="operations of a turn; four times as many with a pipeline")
    ask.add_argument("--hot", type=int, default=100_000, help="GET asks for this many of the keys")
    ask.add_argument("--cpu", type=int, default=0, help="the servers' CPU; clients run on all others")
    ask.add_argument("--policy", default="everysec", help="appendfsync of both")
    ask.add_argument("--extra", default="", help="more arguments for haypile")
    ask.add_argument("--only", default="", help="one case, as 'set 16'")
    ask.add_argument("--out", help="a directory for the results as JSON")
    opt = ask.parse_args()
    others = ",".join(str(c) for c in sorted(os.sched_getaffinity(0)) if c != opt.cpu)
    bench = ["taskset", "-c", others, opt.haypile, "bench"]
    base, children, ports = tempfile.mkdtemp(prefix="haypile-beside-redis-"), [], {}
    try:
        for name in ("redis", "haypile"):
            directory, ports[name] = os.path.join(base, name), free_port()
            os.mkdir(directory)
            children.append(redis(opt.cpu, directory, ports[name], opt.policy) if name == "redis" else haypile(
                opt.haypile, os.path.join(directory, "data"), ports[name], opt.cpu, opt.policy, opt.extra.split()))
            wait_ready(ports[name])
            subprocess.run(bench + ["-p", str(ports[name]), "-t", "load", "-r", str(opt.keys), "-q"], check=True)
        time.sleep(3)
        ends = [f"{name}=127.0.0.1:{port}@{child.pid}" for (name, port), child in zip(ports.items(), children)]
        for test, pipeline, keys in [("get", 1, opt.hot), ("set", 1, opt.keys), ("get", 16, opt.hot), ("set", 16, opt.keys)]:
            if opt.only and opt.only != f"{test} {pipeline}":
                continue
            print(f"pipeline {pipeline}, {keys} keys", flush=True)
            count = opt.count * (4 if pipeline > 1 else 1)
            args = ["-t", test, "-P", str(pipeline), "-r", str(keys), "-n", str(count), "--rounds", str(opt.rounds), "-q"]
            if opt.out:
                os.makedirs(opt.out, exist_ok=True)
                args += ["--json", os.path.join(opt.out, f"{test}-{pipeline}.json")]
            subprocess.run(bench + ["compare"] + ends + args, check=True)
    finally:
        stop(children, base)


if __name__ == "__main__":
    main()
