#!/bin/sh
# boot.sh UID GID: boots systemd in namespaces of its own, with that user's manager, says its process number, and ends it when the input ends.
# Run in a mount namespace of its own (unshare --mount). Nothing of the machine changes but what a system manager sets anyway: two limits, put back.
set -eu
user=$1 group=$2
mount --make-rprivate /
mount -t tmpfs -o mode=755 none /run
mkdir -p /run/systemd/system /run/user/"$user" /run/hierarchy
chown "$user:$group" /run/user/"$user"
chmod 700 /run/user/"$user"
# What logind would start for a session of that user.
cat > /run/systemd/system/user@"$user".service <<UNIT
[Unit]
DefaultDependencies=no
[Service]
User=$user
Group=$group
Type=notify
Environment=XDG_RUNTIME_DIR=/run/user/$user
ExecStart=/lib/systemd/systemd --user
Slice=user-$user.slice
KillMode=mixed
Delegate=yes
UNIT
cat > /run/systemd/system/small.target <<UNIT
[Unit]
DefaultDependencies=no
Wants=user@$user.service
UNIT
# The first boot's machine number is not to be written on this machine.
mount --bind /etc /etc
mount -o remount,bind,ro /etc

mount -t cgroup2 none /run/hierarchy
group_path=/run/hierarchy$(sed -n 's/^0:://p' /proc/self/cgroup)/agentid-$$
mkdir "$group_path"
files=$(cat /proc/sys/fs/file-max) open=$(cat /proc/sys/fs/nr_open)
end() {
  echo 1 > "$group_path/cgroup.kill" || :
  wait
  tries=0
  until find "$group_path" -depth -type d -exec rmdir {} + 2>/dev/null || [ "$tries" = 100 ]; do # the last of them are still going
    tries=$((tries + 1))
    sleep 0.05
  done
  echo "$files" > /proc/sys/fs/file-max
  echo "$open" > /proc/sys/fs/nr_open
}
trap end EXIT

export group_path
sh -c 'echo $$ > "$group_path/cgroup.procs"
exec unshare --cgroup --pid --uts --ipc --net --mount --propagation private --fork --kill-child --mount-proc sh -c "
  umount -R -l /sys/fs/cgroup 2>/dev/null
  mount -t cgroup2 none /sys/fs/cgroup || exit 1
  exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=small.target --log-target=console --show-status=no
"' >&2 &
maker=$!
until init=$(cat /proc/"$maker"/task/"$maker"/children 2>/dev/null) && [ -n "$init" ]; do
  kill -0 "$maker"
  sleep 0.05
done
echo "$init"
cat > /dev/null
