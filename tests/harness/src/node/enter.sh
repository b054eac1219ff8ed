# Process 1 of a node. Mounts and interfaces that are made here, and whatever else the node does, belong to its own
# namespaces, which end with this process.
#
#   enter.sh STATE BIN LOG: the node's folder, the folder of its binaries, the folder of its pods' logs
set -eu
state=$1
bin=$2
log=$3

# /proc is still that of the machine, so this is the process id that others know.
read -r pid _ </proc/self/stat

mount --make-rshared /
mount -t proc proc /proc
# What programs keep in places that cannot be configured is gone with the node. These three come first: mounts below
# them would be hidden.
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/node /run/bin /run/podlogs /run/sysctl
mount --bind "$state" /run/node
mount --bind "$bin" /run/bin
mount --bind "$log" /run/podlogs
mount -t tmpfs -o mode=755 tmpfs /var/lib
mount -t tmpfs -o mode=755 tmpfs /var/log

# The kubelet insists on setting these, which have no namespace: it gets copies to play with.
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys \
    kernel/keys/root_maxbytes; do
    if [ -e "/proc/sys/$name" ]; then
        copy=/run/sysctl/$(echo "$name" | tr / .)
        cat "/proc/sys/$name" >"$copy"
        mount --bind "$copy" "/proc/sys/$name"
    fi
done

ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward

echo "$pid" >/run/node/pid.new
mv /run/node/pid.new /run/node/pid
# Orphans are reaped while the shell waits.
while :; do
    sleep 3600 &
    wait $!
done
