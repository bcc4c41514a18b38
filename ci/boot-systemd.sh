#!/bin/sh
# Boots systemd on a copy of this machine's root that is gone afterwards, and runs one script in it.
#
#   sh ci/boot-systemd.sh FOLDER SECONDS
#
# FOLDER is /mnt in there. FOLDER/script is run as root once systemd is up; what it prints goes to FOLDER/output, and its exit status
# to FOLDER/status. After so many seconds everything in there is killed, and there is no status. The root is an overlay of /, writes go to memory; network, processes, mounts and control groups are its
# own. The kernel is this machine's.
set -eu
if [ "$1" != --inside ]; then
    # With unshare its child dies, which is the first process in there, and with that all others.
    exec timeout --signal=KILL "$2" unshare --pid --fork --kill-child --mount --uts --ipc --net --cgroup \
        sh "$0" --inside "$1"
fi
folder=$2
base=$(mktemp -d)
mount --make-rprivate /
mount -t tmpfs tmpfs "$base"
mkdir "$base/up" "$base/work" "$base/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/up,workdir=$base/work" "$base/root"
cd "$base/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount --rbind /dev dev
# As systemd mounts it.
mount -t bpf -o nosuid,nodev,noexec,mode=700 bpf sys/fs/bpf
mount --bind "$folder" mnt
mkdir -p "$base/root/run/upper"
mount --bind "$base/up" run/upper
: >etc/fstab
cat >etc/systemd/system/script.service <<U
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/bin/bash /mnt/script; echo \$? >/mnt/status; systemctl --no-block exit'
StandardOutput=file:/mnt/output
StandardError=file:/mnt/output
U
export container=tidegate-test
rmdir "$base" 2>/dev/null || true
exec chroot . /lib/systemd/systemd --unit=script.service --log-target=null --show-status=0
