# Removes what namespaces do not: control groups and files. It waits for the end of its standard input first, which the
# test process holds open as long as it lives, so this is done also after `kill -9`.
#
#   janitor.sh NAME STATE: the name of the node's interface and control groups, the node's folder
name=$1
state=$2
cat >/dev/null
# By now the watchers kill the node's processes. The kernel frees their mounts a moment later.
tries=0
while pid=$(cat "$state/pid" 2>/dev/null) && [ -e "/proc/$pid" ] && [ $tries -lt 200 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
ip link delete "$name" 2>/dev/null
tries=0
while [ $tries -lt 50 ]; do
    left=
    for group in "/sys/fs/cgroup/$name" /sys/fs/cgroup/*/"$name"; do
        [ -d "$group" ] || continue
        find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
        [ -d "$group" ] && left=yes
    done
    rm -rf "$state" 2>/dev/null
    [ -z "$left" ] && [ ! -e "$state" ] && exit 0
    sleep 0.1
    tries=$((tries + 1))
done
echo "cannot remove all of $state and the control groups $name" >&2
exit 1
