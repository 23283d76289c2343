#!/bin/sh
# Run a command that may start arm64 programs, on any processor. Begins in namespaces of its own (see emulate.py):
# the handler is in these alone, and ends with them.
# Usage: emulate.sh EMULATOR COMMAND...
set -eu
emulator=$1
shift
mount --make-rprivate /
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
echo ":arm64:M::$magic:$mask:$emulator:OPF" >/proc/sys/fs/binfmt_misc/register
exec "$@"
