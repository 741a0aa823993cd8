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
[ $# -gt 0 ] || set -- get-1 get-16 set-1 set-16 hop-get-16 always-set-1
for case in "$@"; do
    data=$(mktemp -d)
    server="--cores 1 --shards 1 --pin-cpus 0"
    case $case in
        get-1) load="-t get" ;;
        get-16) load="-t get -P 16" ;;
        set-1) load="-t set" ;;
        set-16) load="-t set -P 16" ;;
        hop-get-16) load="-t get -P 16" server="--cores 2 --shards 2 --move-connections off" ;;
        always-set-1) load="-t set" server="$server --appendfsync always" ;;
        *) echo "no case $case" >&2; exit 2 ;;
    esac
    load="$load -r 100000 -c 50 -q"
    "$haypile" server --port $port --data-dir "$data" $server 2>"$data.log" &
    pid=$!
    sleep 2
    "$haypile" bench -p $port -t load -r 100000 -q >/dev/null
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
