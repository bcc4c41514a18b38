# Runs as root under systemd on a copy of the machine's root: the unit with the drop-in for local workloads, and a workload that is a unit too.
set -u
cp /mnt/tidegate /usr/bin/tidegate
cp /mnt/tidegate.service /etc/systemd/system/
install -D -m 0644 /mnt/local-workloads.conf /etc/systemd/system/tidegate.service.d/local-workloads.conf
mkdir -p /etc/tidegate
cp /mnt/shop.yaml /etc/tidegate/
orders=spiffe://acme.example/ns/shop/sa/orders
printf 'TIDEGATE_OPTIONS=-i eth1 --policy /etc/tidegate --local-workload system.slice/orders.service=%s\n' "$orders" >/etc/default/tidegate
groupadd --system tidegate
useradd --system --no-create-home --home-dir /nonexistent --gid tidegate tidegate
ip link set lo up
ip link add eth1 type veth peer name peer1
ip link set eth1 up
ip link set peer1 up
# As systemd mounts it, where it is no container.
mount -t tracefs -o nosuid,nodev,noexec tracefs /sys/kernel/tracing

say() { echo "$1: $2"; }

systemd-run --quiet --unit=orders /bin/bash -c 'while sleep 0.5; do /bin/true; done'
systemctl daemon-reload
systemctl start tidegate
say started $?
systemctl status --no-pager -l tidegate | tail -15
pid=$(systemctl show -P MainPID tidegate)
grep -E '^(Uid|CapEff|Seccomp):' "/proc/$pid/status" | tr '\t' ' '
n=0
until tidegate story "$orders" 2>/dev/null | grep -q 'executes /bin/true'; do
    n=$((n + 1))
    [ $n -gt 200 ] && break
    sleep 0.1
done
say story "$(tidegate story "$orders" | grep -o 'executes /bin/true' | head -1)"
# It reads the number of one tracepoint, and no other.
as_tidegate() { setpriv --reuid=tidegate --regid=tidegate --clear-groups "$@" 2>/dev/null; }
say reads "$(as_tidegate cat /sys/kernel/tracing/events/sched/sched_process_exec/id >/dev/null && echo yes)"
say reads_another "$(as_tidegate cat /sys/kernel/tracing/events/sched/sched_switch/id >/dev/null && echo yes || echo no)"
say reads_traces "$(as_tidegate cat /sys/kernel/tracing/trace >/dev/null && echo yes || echo no)"
systemctl stop tidegate orders
say stopped "$(systemctl show -P Result tidegate)"
tidegate detach --all
# The file system is the machine's.
cd /sys/kernel/tracing && chgrp root events events/sched events/sched/sched_process_exec events/sched/sched_process_exec/id
chmod o-rx . && chmod g-r events/sched/sched_process_exec/id
cd / && umount /sys/kernel/tracing
say verify "$(systemd-analyze verify --man=no /etc/systemd/system/tidegate.service 2>&1 | grep tidegate || echo clean)"
