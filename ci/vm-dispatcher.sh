#!/bin/sh
# The first process of a virtual machine whose kernel takes programs into libxdp's dispatcher: xdp-filter and Tidegate on one
# interface. `cargo xtask oracle vm` boots it. Each line `ok ...` is a statement that held; the first that does not ends it.
#
#   left (10.1.0.2) - eth1 this machine eth2 - right (10.2.0.2); orders on the left may reach payments on the right, tcp/8443
export PATH=/programs:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -t bpf bpf /sys/fs/bpf
mkdir -p /run /tmp /var/lib
mount -t tmpfs tmpfs /run

# busybox has an `ip` of its own, which knows no network namespaces and comes first in its shell.
ip() { /programs/ip "$@"; }
ok() { echo "ok $(cut -d. -f1 /proc/uptime) s: $*"; }
die() {
    echo "NOT OK: $*"
    for file in /tmp/daemon /tmp/said; do [ -s $file ] && sed "s|^|$file: |" $file; done
    xdp-loader status
    ls -R /sys/fs/bpf
    dmesg | tail -5
    sleep 1
    poweroff -f
}
# Packets that Tidegate has dropped by policy as they came in by eth1.
dropped() {
    tidegate drops | awk '$1 == "POLICY_DENIED" && $2 == "DROPPED" && $3 == "INGRESS" && $4 == "eth1" { n += $5 } END { print n + 0 }'
}
# Packets that xdp-filter has dropped.
filtered() { xdp-filter status | awk '$1 == "XDP_DROP" { print $2; exit }'; }
connects() { ip netns exec left nc -w 2 10.2.0.2 "$1" </dev/null >/dev/null 2>&1; }
order() { tidegate status -o json | tr -d ' \n' | sed 's/.*"dispatcher":\[\([^]]*\)\].*/\1/'; }
run() { run_as default "$@"; }
run_as() {
    name=$1; shift
    : >/tmp/daemon # what the one before said is not taken for what this one says
    tidegate --name "$name" run "$@" >/tmp/daemon 2>&1 &
    daemon=$!
    n=0
    until grep -q '^ready' /tmp/daemon; do
        kill -0 $daemon 2>/dev/null || return 1
        n=$((n + 1)); [ $n -lt 1200 ] || return 1
        sleep 0.1
    done
}
stop() { kill $daemon; wait $daemon; }

cat >/shop.yaml <<'Y'
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: orders}
spec: {spiffeId: spiffe://acme.example/ns/shop/sa/orders, addresses: [10.1.0.2/32]}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: payments}
spec: {spiffeId: spiffe://acme.example/ns/shop/sa/payments, addresses: [10.2.0.2/32]}
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: shop}
spec:
  rules:
    - name: pay
      action: allow
      from: [{spiffeId: spiffe://acme.example/ns/shop/sa/orders}]
      to: [{spiffeId: spiffe://acme.example/ns/shop/sa/payments}]
      ports: [tcp/8443]
Y
echo "Linux $(uname -r)"
for module in /modules/*.ko; do insmod "$module" || die "insmod $module"; done
for side in left right; do ip netns add $side && ip -n $side link set lo up; done
for pair in "eth1 left 10.1.0" "eth2 right 10.2.0"; do
    set -- $pair
    ip link add "$1" type veth peer name eth0 netns "$2" || die "veth"
    ip addr add "$3.1/24" dev "$1" && ip link set "$1" up
    ip -n "$2" addr add "$3.2/24" dev eth0 && ip -n "$2" link set eth0 up
    ip -n "$2" route add default via "$3.1"
done
echo 1 >/proc/sys/net/ipv4/ip_forward
for port in 8443 9000; do
    ip netns exec right sh -c "while :; do nc -l -p $port </dev/null >/dev/null 2>&1; done" &
done
connects 8443 || connects 8443 || die "the network does not work without programs"

tidegate doctor -o json >/tmp/said 2>&1
grep -q "shares an interface with other XDP programs" /tmp/said || die "doctor does not know the dispatcher"
ok "doctor: libxdp's dispatcher works here"

xdp-filter load eth1 || die "xdp-filter"
tidegate run -i eth1 -p /shop.yaml >/tmp/said 2>&1 && die "it took an interface that was taken"
grep -q "libxdp's dispatcher of somebody else.*xdpfilt.*--ingress libxdp puts" /tmp/said || die "the message"
[ ! -e /sys/fs/bpf/tidegate/default ] || die "something was left over"
ok "without being asked it takes no dispatcher, names it and says how to share it"

run -i eth1 -p /shop.yaml --ingress libxdp || die "run --ingress libxdp"
grep -q "eth1 (libxdp (native), egress " /tmp/daemon || die "where it judges"
case $(order) in '"xdpfilt_'*'","tidegate_gate"') ;; *) die "order: $(order)" ;; esac
ok "both are in the dispatcher, xdp-filter (run priority 10) first"

connects 8443 || die "what both pass does not pass"
connects 9000 && die "what xdp-filter passes and Tidegate denies passed"
after=$(dropped)
[ "$after" -gt 0 ] || die "the drop has no counter"
ok "what xdp-filter passes is judged: tcp/8443 passed, tcp/9000 dropped, POLICY_DENIED $after packets"

xdp-filter ip 10.1.0.2 -m src || die "xdp-filter ip"
connects 8443 && die "xdp-filter dropped nothing"
connects 9000 && die "xdp-filter dropped nothing"
[ "$(dropped)" = "$after" ] || die "Tidegate saw what xdp-filter had dropped: $(dropped), not $after"
ok "what xdp-filter drops does not come to Tidegate"

tidegate attach eth1 --ingress libxdp --xdp-prio 5 >/tmp/said 2>&1 || die "attach with another priority"
case $(order) in '"tidegate_gate","xdpfilt_'*) ;; *) die "order: $(order)" ;; esac
seen=$(filtered)
connects 9000 && die "passed"
now=$(dropped)
[ "$now" -gt "$after" ] || die "Tidegate is not first"
[ "$(filtered)" = "$seen" ] || die "xdp-filter saw what Tidegate had dropped: $(filtered), not $seen"
connects 8443 && die "xdp-filter is not asked any more"
[ "$(filtered)" -gt "$seen" ] || die "xdp-filter has not counted"
ok "with run priority 5 Tidegate is first, and what it passes goes on to xdp-filter"

tidegate attach eth1 --ingress libxdp --xdp-chain none >/tmp/said 2>&1 || die "attach with another chain"
connects 8443 || die "xdp-filter was asked all the same"
ok "with no chain call Tidegate's verdict is the last"
tidegate attach eth1 --ingress libxdp --xdp-prio 50 --xdp-chain pass >/tmp/said 2>&1 || die "attach again"
xdp-filter ip 10.1.0.2 -m src -r || die "xdp-filter ip -r"

gate=$(xdp-loader status eth1 | awk '/tidegate_gate/ { print $4 }')
stop
connects 8443 || die "nobody judges without the daemon"
connects 9000 && die "nobody judges without the daemon"
run || die "the daemon does not start again: $(cat /tmp/daemon)"
grep -q "eth1 (libxdp (native), egress " /tmp/daemon || die "where it judges after a restart"
[ "$(xdp-loader status eth1 | awk '/tidegate_gate/ { print $4 }')" = "$gate" ] || die "the gate is another"
connects 8443 || die "after a restart"
connects 9000 && die "after a restart"
ok "the daemon started anew puts its program behind the gate that stands (id $gate)"

# xdp-tools before 1.5.5 cannot move a program that calls tails into another dispatcher on a kernel since December 2024.
if xdp-filter unload eth1 >/tmp/said 2>&1; then
    [ "$(order)" = '"tidegate_gate"' ] || die "order: $(order)"
    xdp-filter load eth1 || die "xdp-filter load again"
    what="goes, Tidegate stays"
else
    what="of an older xdp-tools does not go while Tidegate is there, and both stay"
fi
case $(order) in '"xdpfilt_'*'","tidegate_gate"') ;; *) die "order: $(order)" ;; esac
connects 8443 || die "after xdp-filter unload"
connects 9000 && die "after xdp-filter unload"
ok "xdp-filter $what"

first=$daemon
run_as other -i eth1 -p /shop.yaml --ingress libxdp --xdp-prio 60 || die "another instance"
[ "$(order)" = '"'"$(xdp-filter status | awk '/^xdpfilt_/ { print $1 }')"'","tidegate_gate","tidegate_gate"' ] || die "order: $(order)"
stop
tidegate detach eth1 >/tmp/said 2>&1 || die "detach of the first instance"
connects 9000 && die "the other instance does not judge"
[ "$(xdp-loader status eth1 | grep -c tidegate_gate)" = 1 ] || die "not one gate"
tidegate --name other detach --all >/tmp/said 2>&1 || die "detach of the other instance"
daemon=$first
tidegate attach eth1 --ingress libxdp >/tmp/said 2>&1 || die "attach again"
ok "of two instances in one dispatcher the first goes, and the other judges"

tidegate detach eth1 >/tmp/said 2>&1 || die "detach"
xdp-loader status eth1 >/tmp/said
grep -q xdpfilt /tmp/said || die "xdp-filter is gone"
grep -q tidegate /tmp/said && die "the gate is not gone"
connects 9000 || die "after detach"
ok "Tidegate goes, xdp-filter stays"

tidegate attach eth1 >/tmp/said 2>&1 || die "attach, as the daemon was told"
ip link add eth3 type veth peer name eth4 && ip link set eth3 up && ip link set eth4 up
tidegate attach eth3 >/tmp/said 2>&1 || die "attach to an interface of its own"
grep -q "eth3: ingress libxdp (native)" /tmp/said || die "where eth3 is judged"
ip link del eth3
stop
tidegate detach --all >/tmp/said 2>&1 || die "detach --all"
[ ! -e /sys/fs/bpf/tidegate/default ] || die "pins are left"
[ "$(ls -d /sys/fs/bpf/xdp/dispatch-* | wc -l)" = 1 ] || die "libxdp's pins of the interface that is gone are left"
[ "$(ls /sys/fs/bpf/xdp/dispatch-* | grep -c prog.-prog)" = 1 ] || die "libxdp still pins a second program"
xdp-loader status eth1 | grep -q xdpfilt || die "detach --all took xdp-filter away"
xdp-filter unload eth1 || die "xdp-filter unload"
ok "detach --all leaves xdp-filter, which can go now, and nothing of Tidegate, also of an interface that is gone"
xdp-filter load eth1 || die "xdp-filter load again"
run -i eth1 -p /shop.yaml --ingress libxdp --xdp-prio 5 --xdp-chain none || die "run again"

# The clock on the wall is set: nowhere else may a test do that.
tidegate block add 10.1.0.2 --for 1h >/tmp/said 2>&1 || die "block add"
connects 8443 && die "a block cuts nothing"
date -s "@$(($(date +%s) + 7200))" >/dev/null || die "date"
n=0
until connects 8443; do
    n=$((n + 1)); [ $n -lt 10 ] || die "a block of an hour is there two hours later"
done
tidegate policy history >/tmp/said
grep -q "the wall clock was set" /tmp/said || die "history says nothing of the clock"
tidegate block add 10.1.0.2 --for 20s >/tmp/said 2>&1 || die "block add after that"
date -s "@$(($(date +%s) - 7200))" >/dev/null || die "date back"
sleep 30
connects 8443 && die "a block ended two hours early by a clock that was set back"
tidegate block del 10.1.0.2 >/tmp/said 2>&1 || die "block del"
connects 8443 || die "after block del"
ok "where the wall clock is set, two hours on and back, ends of blocks follow it"

# An upgrade across forms of the maps: an older daemon would have left its version in them.
stop
gate=$(xdp-loader status eth1 | awk '/tidegate_gate/ { print $4 }')
config=/sys/fs/bpf/tidegate/default/TG_CONFIG
set -- $(bpftool -j map lookup pinned $config key 0 0 0 0 | sed 's/.*"value":\[\([^]]*\)\].*/\1/; s/[",]/ /g')
older=$(($1 - 1)); shift
bpftool map update pinned $config key 0 0 0 0 value $older "$@" || die "an older version"
tidegate status >/tmp/said 2>&1 && die "maps of another version were read"
# Nothing allows ICMP: an answer is a gap.
touch /tmp/pings
(while [ -e /tmp/pings ]; do ip netns exec left ping -c 20 -i 0.05 -W 1 10.2.0.2; done) >/tmp/ping 2>&1 &
pinger=$!
connects 9000 && die "the older programs do not judge"
run || die "the upgrade"
[ ! -e /sys/fs/bpf/tidegate/default/before ] || die "the older maps are still there"
tidegate status >/tmp/said 2>&1 || die "the maps are not of this version"
connects 8443 || die "after the upgrade"
connects 9000 && die "after the upgrade"
rm /tmp/pings; wait $pinger
sent=$(awk '/packets transmitted/ { n += $1 } END { print n + 0 }' /tmp/ping)
came=$(awk '/packets received/ { n += $4 } END { print n + 0 }' /tmp/ping)
[ "$came" = 0 ] || die "$came of $sent packets passed in the upgrade"
[ "$sent" -gt 20 ] || die "only $sent packets were sent"
[ "$(xdp-loader status eth1 | awk '/tidegate_gate/ { print $4 }')" = "$gate" ] || die "the gate is another"
ok "maps of an older form are replaced behind the gate that stands (id $gate): none of $sent packets passed"

# As when the host starts anew: no program, no pin, and what the daemon has on its disk.
stop
ip link set dev eth1 xdp off
umount /sys/fs/bpf && mount -t bpf bpf /sys/fs/bpf || die "bpffs"
ip link show eth1 | grep -q xdp && die "a program is left"
connects 9000 || die "something judges without a program"
xdp-filter load eth1 || die "xdp-filter load after the start"
run -i eth1 || die "run after the start"
case $(order) in '"tidegate_gate","xdpfilt_'*) ;; *) die "order after the start: $(order)" ;; esac
row=$(xdp-loader status eth1 | grep tidegate_gate)
[ "$(echo "$row" | awk '{ print $2 }')" = 5 ] || die "run priority after the start: $row"
echo "$row" | grep -q XDP_PASS && die "chain call actions after the start: $row"
connects 8443 || die "after the start"
connects 9000 && die "after the start"
ok "when the host starts anew, run priority and chain call actions are as they were told"
echo DONE
sleep 0.5
poweroff -f
