#!/bin/sh
# Settings of a host for haypile, until the next boot. Run it as root; `haypile tune` says what is left.
#
#   tuning/host.sh [DEVICE]      DEVICE: the disk of the data, like nvme0n1
set -eu

write() {
    if [ -w "$2" ]; then
        echo "$1" > "$2"
        echo "$2: $1"
    else
        echo "$2: not there, or not writable" >&2
    fi
}

write madvise /sys/kernel/mm/transparent_hugepage/enabled
write 1 /proc/sys/vm/swappiness
write 4096 /proc/sys/net/core/somaxconn
# Write back early and little at a time: a burst of it delays the log's syncs.
write 67108864 /proc/sys/vm/dirty_background_bytes
write 536870912 /proc/sys/vm/dirty_bytes

for governor in /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor; do
    if [ -e "$governor" ]; then
        write performance "$governor"
    fi
done

if [ $# -ge 1 ]; then
    write none "/sys/block/$1/queue/scheduler"
fi
