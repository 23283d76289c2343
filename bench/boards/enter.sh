#!/bin/sh
# Run a command in an arm64 root, on any processor. Begins in namespaces of its own (see enter.py): the handler
# and the mounts below are in these alone, and end with them.
# Usage: enter.sh ROOT EMULATOR CPUINFO COMMAND...   CPUINFO: a file to show as /proc/cpuinfo, or /dev/null
set -eu
root=$1 emulator=$2 cpuinfo=$3
shift 3
mount --make-rprivate /
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
echo ":arm64:M::$magic:$mask:$emulator:OPF" >/proc/sys/fs/binfmt_misc/register
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
[ "$cpuinfo" = /dev/null ] || mount --bind "$cpuinfo" "$root/proc/cpuinfo"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
exec chroot "$root" "$@"
