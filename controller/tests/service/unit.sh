# Runs as root under systemd on a copy of the machine's root: the unit as it is shipped, on a gateway between two ends of veth.
set -u
cp /mnt/tidegate /usr/bin/tidegate
cp /mnt/tidegate.service /etc/systemd/system/
mkdir -p /etc/tidegate
cp /mnt/shop.yaml /etc/tidegate/
printf 'TIDEGATE_OPTIONS=-i eth1 --policy /etc/tidegate\n' >/etc/default/tidegate
groupadd --system tidegate
useradd --system --no-create-home --home-dir /nonexistent --gid tidegate tidegate
ip link set lo up
ip link add eth1 type veth peer name peer1
ip link set eth1 up
ip link set peer1 up

say() { echo "$1: $2"; }
property() { systemctl show -P "$1" tidegate; }
# Waits for something that has to come.
await() {
    n=0
    until eval "$2"; do
        n=$((n + 1))
        if [ $n -gt 200 ]; then
            say "$1" "never came"
            systemctl status --no-pager -l tidegate
            return 1
        fi
        sleep 0.1
    done
    say "$1" yes
}

systemctl daemon-reload
systemctl start tidegate
say started $?
pid=$(property MainPID)
say state "$(property ActiveState) $(property StatusText)"
grep -E '^(Uid|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' "/proc/$pid/status" | tr '\t' ' '
say interface "$(ip link show eth1 | grep -o 'prog/xdp' || echo bare)"
say status "$(tidegate status -o json)"

# Killed: it is there again, and the interface was never bare.
kill -9 "$pid"
say interface "$(ip link show eth1 | grep -o 'prog/xdp' || echo bare)"
await restarted '[ "$(property NRestarts)" = 1 ] && [ "$(property ActiveState)" = active ]'
say revision "$(tidegate status -o json | grep -o '"revision":[0-9]*')"

# A policy that is not confirmed, and a daemon that dies meanwhile: the next one takes it back.
sed 's/action: allow/action: deny/' /mnt/shop.yaml >/tmp/deny.yaml
tidegate policy apply /tmp/deny.yaml --confirm-within 3s >/dev/null
say denied "$(tidegate why orders payments 8443 -o json | grep -o '"verdict":"[A-Z]*"' | head -1)"
kill -9 "$(property MainPID)"
await taken_back 'tidegate why orders payments 8443 -o json | grep -q "\"verdict\":\"FORWARDED\""'

# One that hangs is killed by the watchdog.
mkdir -p /run/systemd/system/tidegate.service.d
printf '[Service]\nWatchdogSec=3s\n' >/run/systemd/system/tidegate.service.d/short.conf
systemctl daemon-reload
systemctl restart tidegate
before=$(property MainPID)
kill -STOP "$before"
await watchdog '[ "$(property MainPID)" != "$before" ] && [ "$(property ActiveState)" = active ]'

systemctl stop tidegate
say stopped "$(property Result)"
say interface "$(ip link show eth1 | grep -o 'prog/xdp' || echo bare)"
tidegate detach --all
say interface "$(ip link show eth1 | grep -o 'prog/xdp' || echo bare)"

# With the drop-in for libxdp's dispatcher, and options that the state keeps: given once, and not again.
install -D -m 0644 /mnt/libxdp.conf /etc/systemd/system/tidegate.service.d/libxdp.conf
systemctl daemon-reload
for options in '--ingress libxdp --xdp-prio 20 --xdp-chain none' ''; do
    printf 'TIDEGATE_OPTIONS=--policy /etc/tidegate %s\n' "$options" >/etc/default/tidegate
    systemctl restart tidegate
    say started_as_root $?
    grep -E '^(Uid|CapEff):' "/proc/$(property MainPID)/status" | sed 's/^/shared_/' | tr '\t' ' '
    # The host that starts anew has no pins.
    systemctl stop tidegate
    tidegate detach --all
done
say verify_shared "$(systemd-analyze verify --man=no tidegate.service 2>&1 | grep tidegate || echo clean)"
rm -r /etc/systemd/system/tidegate.service.d
systemctl daemon-reload
say security "$(systemd-analyze security --no-pager --offline=true /etc/systemd/system/tidegate.service | tail -1)"
say verify "$(systemd-analyze verify --man=no /etc/systemd/system/tidegate.service 2>&1 | grep tidegate || echo clean)"
