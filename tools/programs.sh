#!/bin/sh
# Have the programs that tests start on the PATH: redis-server, nginx, and chromium with chromedriver. Called by
# `make test`.
#
# Installs what is missing where apt-get works without a password; otherwise says what to do, and the tests that need it
# are skipped, or fail where CI is set.

set -u
PATH=$PATH:/usr/sbin

missing() {
    for pair in redis-server:redis-server nginx:nginx-light chromium:chromium chromedriver:chromium-driver; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || printf ' %s' "${pair##*:}"
    done
}

packages=$(missing)
[ -z "$packages" ] && exit 0

root=
[ "$(id -u)" = 0 ] || root="sudo -n"
install() {
    # Word splitting gives one argument for each package.
    # shellcheck disable=SC2086
    $root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends $packages
}

if command -v apt-get >/dev/null 2>&1 && $root true 2>/dev/null; then
    echo "Installing with apt-get:$packages"
    log=$(mktemp)
    { install || { $root apt-get update && install; }; } >"$log" 2>&1 || tail -n 3 "$log" >&2
    rm -f "$log"
fi
packages=$(missing)
[ -z "$packages" ] || {
    echo "make test: missing are$packages; install them (Debian: apt install$packages; macOS: brew install" \
        "redis nginx, and chromium with chromedriver)" >&2
    exit 1
}
