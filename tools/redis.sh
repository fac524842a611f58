#!/bin/sh
# Have redis-server on the PATH: tests start servers of their own with it. Called by `make test`.
#
# Installs it where apt-get works without a password; otherwise says what to do, and the tests that need it are
# skipped, or fail where CI is set.

set -u
command -v redis-server >/dev/null 2>&1 && exit 0

root=
[ "$(id -u)" = 0 ] || root="sudo -n"
install() {
    $root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends redis-server
}

if command -v apt-get >/dev/null 2>&1 && $root true 2>/dev/null; then
    echo "Installing redis-server with apt-get"
    log=$(mktemp)
    { install || { $root apt-get update && install; }; } >"$log" 2>&1 || tail -n 3 "$log" >&2
    rm -f "$log"
fi
command -v redis-server >/dev/null 2>&1 || {
    echo "make test: there is no redis-server; install it (Debian, Ubuntu: apt install redis-server;" \
        "macOS: brew install redis)" >&2
    exit 1
}
