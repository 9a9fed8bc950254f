#!/bin/sh
# Makes DIRECTORY with a kernel for virtual machines: `vmlinuz`, and in `modules` those that the machine needs and that are not built
# in, with their `order`. It is the distribution's own, unpacked: nothing is installed.
# Usage: kernel.sh DIRECTORY
set -eu
mkdir -p "$1"
cd "$1"

# Debian's, else Ubuntu's, which has its modules in a second package.
for name in linux-image-cloud-amd64 linux-image-virtual; do
    packages=$(apt-cache depends --recurse --important "$name" 2>/dev/null | grep -E '^linux-(image|modules)-[0-9]' | sort -u || true)
    [ -z "$packages" ] || break
done
[ -n "$packages" ] || { echo "kernel.sh: apt knows no kernel for virtual machines (apt-get update?)" >&2; exit 1; }
# shellcheck disable=SC2086 # a list of words
apt-get download -q $packages >download.log 2>&1 || { cat download.log >&2; exit 1; }
for package in *.deb; do
    dpkg-deb -x "$package" unpacked
done
[ -e unpacked/lib ] || ln -s usr/lib unpacked/lib
mv unpacked/boot/vmlinuz-* vmlinuz

tree=$(echo unpacked/lib/modules/*)
# depmod of busybox reads them plain.
find "$tree/" -name '*.ko.xz' -exec xz -d {} +
find "$tree/" -name '*.ko.zst' -exec zstd -q -d --rm {} +
busybox depmod -b "$PWD/unpacked" "${tree##*/}"
mkdir modules
# Writes down a module after those that it needs.
take() {
    line=$(grep "/$1\.ko:" "$tree/modules.dep") || {
        grep -q "/$1\.ko" "$tree/modules.builtin" && return
        echo "kernel.sh: there is no module $1" >&2
        exit 1
    }
    needed=
    # It lists them from the last to the first.
    for module in ${line#*:}; do
        needed="$module $needed"
    done
    for module in $needed "${line%%:*}"; do
        name=${module##*/}
        grep -qsx "$name" modules/order && continue
        cp "$tree/$module" modules/
        echo "$name" >>modules/order
    done
}
for module in virtio_pci virtio_net nvme ext4; do
    take "$module"
done
rm -rf unpacked ./*.deb download.log
