#!/bin/sh
# Run a command in an arm64 root. Begins where emulate.sh leaves: in namespaces of its own, in which its mounts end.
# Usage: enter.sh ROOT COMMAND...
set -eu
root=$1
shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
exec chroot "$root" "$@"
