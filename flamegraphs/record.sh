#!/bin/sh
# Records the flame graphs of this directory: one server for each case, loaded by `haypile bench`.
#
#     flamegraphs/record.sh PATH-OF-HAYPILE [CASE ...]
#
# Needs perf (Debian: linux-perf) and inferno (cargo install inferno). Writes CASE.svg, and CASE.txt with
# what was run; what a graph taught is added to the text by hand.
set -eu
haypile=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
port=9231
[ $# -gt 0 ] || set -- get-1 get-16 set-1 set-16 hop-get-16 hop-set-16 always-set-1 cold-get-1
for case in "$@"; do
    data=$(mktemp -d)
    server="--cores 1 --shards 1 --pin-cpus 0"
    keys=100000
    size=128
    case $case in
        get-1) load="-t get" ;;
        get-16) load="-t get -P 16" ;;
        set-1) load="-t set" ;;
        set-16) load="-t set -P 16" ;;
        hop-get-16) load="-t get -P 16" server="--cores 2 --shards 2 --move-connections off" ;;
        hop-set-16) load="-t set -P 16" server="--cores 2 --shards 2 --move-connections off" ;;
        # Ten times the budget, so that nearly every key is read from a file.
        cold-get-1) load="-t get" server="$server --memory-budget 64MiB" keys=640000 size=1024 ;;
        always-set-1) load="-t set" server="$server --appendfsync always" ;;
        *) echo "no case $case" >&2; exit 2 ;;
    esac
    load="$load -r $keys -d $size --random-values -c 50 -q"
    "$haypile" server --port $port --data-dir "$data" $server 2>"$data.log" &
    pid=$!
    sleep 2
    "$haypile" bench -p $port -t load -r $keys -d $size --random-values -q >/dev/null
    sleep 3
    "$haypile" bench -p $port $load --seconds 10 >/dev/null &
    bench=$!
    sleep 1
    perf record -q -F 299 --call-graph dwarf,16384 -p $pid -o "$data.perf" -- sleep 4 >/dev/null 2>&1
    wait $bench
    kill $pid
    wait $pid || true
    perf script --no-inline -i "$data.perf" 2>/dev/null | inferno-collapse-perf 2>/dev/null |
        inferno-flamegraph --title "$case" >"$here/$case.svg"
    {
        echo "commit $(git -C "$here" rev-parse --short HEAD)"
        echo "server: haypile server $server"
        echo "load:   haypile bench $load"
        echo "record: perf record -F 299 --call-graph dwarf,16384, 4 s; flamegraphs/record.sh"
        echo "machine: $(nproc) CPUs, Linux $(uname -r)"
    } >"$here/$case.txt"
    rm -rf "$data" "$data.perf" "$data.log"
done
