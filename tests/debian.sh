#!/bin/sh
# Runs the README's commands on a Debian that has nothing but git, make and its own Python: what a developer's machine has
# got from somewhere else, a user's lacks. It needs root and debootstrap, takes the last commit, and leaves nothing behind.
#   tests/debian.sh [COMMAND]        COMMAND is "make test" unless it is said
set -e
command=${1:-make test}
suite=bookworm
if [ "$(id -u)" != 0 ]; then echo "tests/debian.sh makes a file system of its own and needs root: sudo make test-debian" >&2; exit 2; fi
for tool in debootstrap unshare chroot git; do
	command -v $tool >/dev/null || { echo "tests/debian.sh needs $tool: apt-get install debootstrap util-linux git" >&2; exit 2; }
done
project=$(cd "$(dirname "$0")/.." && pwd)
root=$(mktemp -d /var/tmp/debian.XXXXXX)
trap 'rm -rf --one-file-system "$root"' EXIT
trap 'exit 130' INT TERM
echo "Debian $suite into $root"
debootstrap --variant=minbase --include=ca-certificates,git,make,python3 $suite "$root" http://deb.debian.org/debian >"$root.log" 2>&1 ||
	{ tail -5 "$root.log" >&2; echo "debootstrap failed: its output is in $root.log" >&2; exit 1; }
rm -f "$root.log"
for area in $suite-updates $suite-security; do
	case $area in *security) archive=debian-security ;; *) archive=debian ;; esac
	echo "deb http://deb.debian.org/$archive $area main"
done >>"$root/etc/apt/sources.list"
# How the network is reached is the machine's.
cp /etc/resolv.conf "$root/etc/"
test ! -f /etc/ssl/certs/ca-certificates.crt || cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
git clone -q --bare "$project" "$root/opt/project.git"
# The mounts are seen by nobody else, and go with the last process.
unshare --mount --propagation private sh -e -c '
	mount -t proc proc "$1/proc"
	mount --rbind /dev "$1/dev"
	exec chroot "$1" env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		PIP_CERT=/etc/ssl/certs/ca-certificates.crt sh -e -c "
		mkdir /home/user && cd /home/user
		git clone -q /opt/project.git project
		cd project
		$2"
' sh "$root" "$command"
