#!/usr/bin/env python3
"""Collections of haypile beside redis-server: CPU of the server per operation, both pinned to the same CPU
and loaded in turns from the others.

    python3 bench-harness/types_beside_redis.py --haypile PATH [--rounds 4] [--count 100000] [--only hset]
"""
import argparse, os, statistics, subprocess, tempfile
from beside_redis import free_port, haypile, redis, stop, wait_ready

# Name, command, elements it chooses from. What a reading command needs is put there before.
CASES = [
    ("hset", "HSET hash field:__rand_int__ __data__", 100_000),
    ("hget", "HGET hash field:__rand_int__", 100_000),
    ("lpush", "LPUSH list __data__", 1),
    ("lrange_100", "LRANGE list 0 99", 1),
    ("lpop", "LPOP list", 1),
    ("sadd", "SADD set member:__rand_int__", 1_000_000),
    ("zadd", "ZADD zset __rand_int__ member:__rand_int__", 100_000),
    ("zrangebyscore_10", "ZRANGEBYSCORE zset __rand_int__ +inf LIMIT 0 10", 100_000),
    ("xadd", "XADD stream * field __data__", 1),
]


def cpu_us(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--haypile", required=True)
    ask.add_argument("--rounds", type=int, default=4)
    ask.add_argument("--count", type=int, default=100_000, help="operations of a turn; four times as many with a pipeline")
    ask.add_argument("--cpu", type=int, default=0)
    ask.add_argument("--only", default="", help="one case by its name")
    ask.add_argument("--policy", default="everysec")
    opt = ask.parse_args()
    others = ",".join(str(c) for c in sorted(os.sched_getaffinity(0)) if c != opt.cpu)
    base, children, ports = tempfile.mkdtemp(prefix="haypile-types-"), [], {}
    try:
        for name in ("redis", "haypile"):
            directory, ports[name] = os.path.join(base, name), free_port()
            os.mkdir(directory)
            children.append(redis(opt.cpu, directory, ports[name], opt.policy) if name == "redis" else haypile(
                opt.haypile, os.path.join(directory, "data"), ports[name], opt.cpu, opt.policy, []))
            wait_ready(ports[name])
        pids = dict(zip(ports, (child.pid for child in children)))

        def load(name, command, keys, count, pipeline):
            args = ["taskset", "-c", others, opt.haypile, "bench", "-p", str(ports[name]), "-r", str(keys),
                    "-n", str(count), "-P", str(pipeline), "-q", "--"] + command.split()
            subprocess.run(args, check=True, stdout=subprocess.DEVNULL)

        for case, command, keys in CASES:
            if opt.only and opt.only != case:
                continue
            if case in ("hget", "lrange_100", "lpop", "zrangebyscore_10"):
                fill = {"hget": CASES[0], "zrangebyscore_10": CASES[6]}.get(case, CASES[2])
                for name in ports:
                    load(name, fill[1], fill[2], 300_000 if case != "lpop" else opt.count * 5 * (opt.rounds + 1), 64)
            for pipeline in (1, 16):
                count, cost = opt.count * (4 if pipeline > 1 else 1), {name: [] for name in ports}
                for turn in range(opt.rounds):
                    for name in ports if turn % 2 == 0 else reversed(ports):
                        before = cpu_us(pids[name])
                        load(name, command, keys, count, pipeline)
                        cost[name].append((cpu_us(pids[name]) - before) / count)
                ratios = [h / r for h, r in zip(cost["haypile"], cost["redis"])]
                print(f"{case:17} pipeline {pipeline:2}  redis {statistics.median(cost['redis']):6.2f} us  haypile "
                      f"{statistics.median(cost['haypile']):6.2f} us  ratio {statistics.median(ratios):.2f} "
                      f"({min(ratios):.2f} to {max(ratios):.2f})", flush=True)
    finally:
        stop(children, base)


if __name__ == "__main__":
    main()
