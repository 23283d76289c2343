#!/bin/busybox sh
# The first process of a booted kernel, from its initrd: loads what the disk needs, and goes over to the disk.
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs dev /dev
for module in $($B cat /modules/order); do $B insmod /modules/$module; done
i=0
while [ ! -b /dev/vda ] && [ $i -lt 100 ]; do $B sleep 0.2; i=$((i + 1)); done
$B mount -t ext4 /dev/vda /new
$B mount -t devtmpfs dev /new/dev
$B umount /proc
$B umount /sys
exec $B switch_root /new /root/second-init.sh
