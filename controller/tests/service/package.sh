# Runs as root under systemd on a copy of the machine's root: the Debian package on a gateway between two namespaces.
set -u
say() { echo "$1: $2"; }
property() { systemctl show -P "$1" tidegate; }
interface() { say interface "$(ip link show eth1 | grep -o 'prog/xdp' || echo bare)"; }
there() { if [ -s "$2" ]; then say "$1" there; else say "$1" missing; fi; }
found() { find /etc /usr /var /run /sys/fs/bpf -xdev -path /run/upper -prune -o -name '*tidegate*' -print -o -path '/etc/tidegate/*' -print |
    grep -v -e '^/var/lib/systemd/' -e '^/sys/' | sort; }
inside() { nsenter --net="/run/netns/$1" "${@:2}"; }

# What an image of a container forbids: services that packages start, and manual pages.
rm -f /usr/sbin/policy-rc.d /etc/dpkg/dpkg.cfg.d/*
# Not in /tmp: systemd mounts another there.
mkdir /run/test
found >/run/test/before

# orders 10.1.0.2 - eth1 [gateway] eth2 - 10.2.0.2 payments
mkdir -p /run/netns
for pair in "orders eth1 10.1.0" "payments eth2 10.2.0"; do
    set -- $pair
    ip netns add "$1"
    ip link add "$2" type veth peer name port netns "$1"
    ip addr add "$3.1/24" dev "$2"
    ip link set "$2" up
    inside "$1" ip addr add "$3.2/24" dev port
    inside "$1" ip link set port up
    inside "$1" ip route add default via "$3.1"
done
echo 1 >/proc/sys/net/ipv4/ip_forward

# Whoever opens 8443 hears what he says. Whom a datagram for port 9 reaches leaves a mark.
inside payments systemd-socket-activate --accept --inetd --listen=10.2.0.2:8443 cat 2>/dev/null &
inside payments systemd-socket-activate --datagram --listen=10.2.0.2:9 touch /run/test/leaked 2>/dev/null &
leaked() { say "$1" "$(ls /run/test/leaked 2>/dev/null | wc -l) leaked"; }

dpkg -i /mnt/first.deb >/run/test/log 2>&1
say installed $?
cat /run/test/log
say version "$(dpkg-query -W -f '${Version}' tidegate)"
say rests "$(systemctl is-enabled tidegate) $(systemctl is-active tidegate)"
say conffiles "$(dpkg-query -W -f '${Conffiles}' tidegate | awk '{print $1}' | xargs)"
there manual /usr/share/man/man1/tidegate-run.1.gz
there bash /usr/share/bash-completion/completions/tidegate
there zsh /usr/share/zsh/vendor-completions/_tidegate
there fish /usr/share/fish/vendor_completions.d/tidegate.fish
there schema /usr/share/tidegate/policy.schema.json
there local /usr/share/tidegate/systemd/local-workloads.conf
there alerts /usr/share/tidegate/prometheus/tidegate.rules.yml
there dashboard /usr/share/tidegate/grafana/tidegate.json
there changelog /usr/share/doc/tidegate/changelog.Debian.gz
there copyright /usr/share/doc/tidegate/copyright
say completes "$(
    . /usr/share/bash-completion/completions/tidegate
    COMP_WORDS=(tidegate deta)
    COMP_CWORD=1
    _tidegate tidegate deta tidegate
    echo "${COMPREPLY[*]}"
)"
interface
leaked before

cp /mnt/shop.yaml /etc/tidegate/ 2>/dev/null || install -D -m 0644 /mnt/shop.yaml /etc/tidegate/shop.yaml
printf 'TIDEGATE_OPTIONS=-i eth1 -i eth2 --policy /etc/tidegate\n' >/etc/default/tidegate
systemctl --quiet enable --now tidegate
say started $?
systemctl status --no-pager -l tidegate | head -20
interface
say runs_as "$(ps -o user= -p "$(property MainPID)")"

# From here to the purge, ten datagrams a second that no rule allows.
inside orders bash -c 'while sleep 0.1; do echo x >/dev/udp/10.2.0.2/9; done 2>/dev/null' &
sender=$!

# One connection over all of it, which says what it is told to.
mkfifo /run/test/words
inside orders bash -c 'exec 3<>/dev/tcp/10.2.0.2/8443
    while read -r word; do
        echo "$word" >&3
        read -t 10 -r answer <&3
        echo "$answer" >/run/test/answer
    done </run/test/words' &
exec 4>/run/test/words
hear() {
    rm -f /run/test/answer
    echo "$1" >&4
    for _ in $(seq 100); do
        [ -s /run/test/answer ] && break
        sleep 0.1
    done
    cat /run/test/answer 2>/dev/null
}
flow() { tidegate flows -o json | grep '"destination_port":8443'; }
say answered "$(hear one)"
say packets "$(flow | grep -o '"packets[a-z_]*":[0-9]*' | head -1 | tr -dc 0-9)"
say history "$(flow | grep -o '"history":"[^"]*"')"
flow
sleep 0.5
say denied "$(tidegate drops -o json | grep -o POLICY_DENIED | head -1)"

old=$(property MainPID)
dpkg -i /mnt/second.deb 2>&1
say upgraded "$(dpkg-query -W -f '${Version}' tidegate)"
new=$(property MainPID)
[ "$(property ActiveState)" = active ] && [ "$new" != "$old" ] && say another_daemon yes
grep -q 'eth1' /etc/default/tidegate && say options_kept yes
interface
say answered_after_upgrade "$(hear two)"
say packets_after_upgrade "$(flow | grep -o '"packets[a-z_]*":[0-9]*' | head -1 | tr -dc 0-9)"
say history_after_upgrade "$(flow | grep -o '"history":"[^"]*"')"

dpkg -r tidegate >/run/test/removal 2>&1
say removed $?
cat /run/test/removal
pgrep -x tidegate >/dev/null || say no_daemon yes
say named "$(grep -x '    eth1.*' /run/test/removal | xargs)"
say way_out "$(grep -o '/var/lib/tidegate-removed/.*' /run/test/removal)"
interface
sleep 0.5
leaked gaps

dpkg -P tidegate 2>&1
say purged $?
interface
sleep 1
leaked passes
kill "$sender"
say left "$(found | comm -13 /run/test/before - | xargs)"
say user "$(getent passwd tidegate || echo gone)"
say pins "$(ls -d /sys/fs/bpf/tidegate 2>/dev/null || echo none)"
