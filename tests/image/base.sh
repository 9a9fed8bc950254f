#!/bin/sh
# Makes what Debian's slim image is, for machines that reach Debian's mirrors but no image registry: a tar of a minimal Debian without
# documentation and translations. Usage: base.sh DIRECTORY, which gets base.tar.
set -eu
suite=trixie
mirror=http://deb.debian.org/debian
cd "$1"

# What debootstrap mounts goes with its namespace, also when it fails.
unshare --mount debootstrap --variant=minbase "$suite" root "$mirror" >log 2>&1 || { cat log >&2; exit 1; }

# As in the images of https://github.com/debuerreotype/debuerreotype: packages that come later leave the same out.
cat >root/etc/dpkg/dpkg.cfg.d/docker <<'END'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
END
echo 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };' >root/etc/apt/apt.conf.d/docker-clean
rm -rf root/usr/share/info/* root/usr/share/locale/* root/usr/share/man/* root/var/lib/apt/lists/*
rm -f root/var/cache/apt/archives/*.deb root/var/cache/apt/*.bin root/var/log/*.log
find root/usr/share/doc -type f ! -name copyright -delete
find root/usr/share/doc -type l -delete
find root/usr/share/doc -type d -empty -delete

# Nothing of this machine.
rm -f root/etc/hostname root/etc/resolv.conf
tar --create --numeric-owner --directory root --file base.tar .
rm -rf root log
