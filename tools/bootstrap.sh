#!/bin/sh
# Make .venv hold what the lock says: `sh tools/bootstrap.sh runtime` or `... dev`. Called by `make install`.
#
# Needs a CPython this project runs on and nothing else: uv does the work where it is there or can be had, pip
# where not. Does nothing when nothing changed. What fails is said in one line.
#   PYTHON=python3.12   the interpreter to use
#   INSTALLER=pip       keep away from uv

set -u
level=${1:-runtime}
venv=.venv
stamp=$venv/.installed
log=$venv/install.log
supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))'

die() {
    echo "make install: $*" >&2
    exit 1
}

quietly() {
    "$@" >>"$log" 2>&1
}

runs_us() {
    "$1" -c "$supported" >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        runs_us "$PYTHON" || die "PYTHON=$PYTHON is not a Python from 3.11 to 3.14"
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python3.14 python; do
        if runs_us "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    die "no Python from 3.11 to 3.14 on the PATH; install one, or name it: make install PYTHON=/path/to/python3"
}

# Debian's python3 comes without ensurepip: then the environment gets its pip from the pip outside of it, if any.
make_venv() {
    rm -rf "$venv"
    if [ "${INSTALLER:-uv}" = uv ] && uv venv --quiet --no-project --python "$(command -v "$python")" "$venv" 2>/dev/null; then
        return
    fi
    "$python" -m venv "$venv" >/dev/null 2>&1 && return
    rm -rf "$venv"
    "$python" -m venv --without-pip "$venv" >/dev/null 2>&1 &&
        "$python" -m pip --quiet --python "$venv/bin/python" install pip >/dev/null 2>&1 && return
    rm -rf "$venv"
    die "$python can make no virtual environment: install the venv module (Debian, Ubuntu: apt install python3-venv) or uv"
}

venv_is_ours() {
    runs_us "$venv/bin/python" || return 1
    # Its scripts hold the path they were made for; a moved checkout needs new ones.
    [ ! -e "$venv/bin/thresher" ] || grep -qF "$PWD/$venv" "$venv/bin/thresher" || return 1
    version='import sys; print(sys.version_info[:2])'
    [ -z "${PYTHON:-}" ] || [ "$("$PYTHON" -c "$version")" = "$("$venv/bin/python" -c "$version")" ]
}

# uv knows nothing of pip's configuration, where a company names its own index.
tell_uv_the_index() {
    index=${PIP_INDEX_URL:-$("$python" -m pip config get global.index-url 2>/dev/null)}
    if [ -n "$index" ] && [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
        export UV_DEFAULT_INDEX="$index"
    fi
}

find_uv() {
    [ "${INSTALLER:-uv}" = uv ] || return 1
    for uv in uv "$venv/bin/uv"; do
        "$uv" --version >/dev/null 2>&1 && return
    done
    # The version and the hashes that the lock gives for it.
    awk '/^uv==/ { on = 1 } on { print } on && !/\\$/ { exit }' requirements-dev.lock >"$venv/uv.lock"
    quietly "$venv/bin/python" -m pip install --quiet --require-hashes --no-deps -r "$venv/uv.lock"
}

install_with_uv() {
    find_uv || return 1
    tell_uv_the_index
    quietly "$uv" pip install --python "$venv/bin/python" --compile-bytecode --require-hashes -r "$lock" &&
        quietly "$uv" pip install --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
}

install_with_pip() {
    pip="$venv/bin/python -m pip"
    $pip --version >/dev/null 2>&1 || quietly "$venv/bin/python" -m ensurepip ||
        quietly "$python" -m pip --python "$venv/bin/python" install pip || return 1
    quietly $pip install --no-input --require-hashes -r "$lock" &&
        quietly $pip install --no-input --no-deps --no-build-isolation --editable .
}

# The last words of uv and pip when there is no network are about a package that does not exist.
reason() {
    if grep -qiE 'name resolution|dns error|newconnectionerror|unreachable|timed out|connection refused' "$log"; then
        echo "the package index cannot be reached"
    elif ! grep -iE '^ *(error|cause)' "$log" | tail -n 1 | grep .; then
        echo "there is no pip in $venv"
    fi
}

cd "$(dirname "$0")/.." || exit 1
case $level in
runtime) lock=requirements.lock ;;
dev) lock=requirements-dev.lock ;;
*) die "no such set of packages: $level (runtime, dev)" ;;
esac

key=$({ pwd; cat pyproject.toml requirements.lock requirements-dev.lock tools/bootstrap.sh; } | cksum)
installed=$(cat "$stamp" 2>/dev/null)
if { [ "$installed" = "$key dev" ] || [ "$installed" = "$key $level" ]; } && venv_is_ours; then
    exit 0
fi

python=$(find_python) || exit 1
venv_is_ours || make_venv
rm -f "$stamp"
: >"$log"
echo "Installing $(grep -c '==' "$lock") locked packages into $venv ($("$venv/bin/python" -V))"
if install_with_uv; then
    by=uv
elif install_with_pip; then
    by=pip
else
    die "could not install the packages: $(reason) (more in $log)"
fi
echo "$key $level" >"$stamp"
echo "Installed with $by"
