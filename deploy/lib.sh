# Shared by deploy/run, tests/run and .ci/run: POSIX sh, sourced with the checkout as working directory.
# shellcheck shell=sh

say() { printf 'mxfleet: %s\n' "$*" >&2; }

fail() {
    status=$1
    shift
    say "$@"
    exit "$status"
}

has_python() { python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

require_python() {
    has_python || fail 69 "Python 3.11 or newer with venv is needed, this is: $(python3 --version 2>&1)"
}

install_packages() {
    line="apt-get install --no-install-recommends $*"
    command -v apt-get >/dev/null || fail 69 "missing: $* (Debian's names); install them and start again"
    if [ "$(id -u)" = 0 ]; then
        as_root=''
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root='sudo'
    else
        fail 69 "missing packages; as root, type:  $line"
    fi
    say "installing $*"
    $as_root env DEBIAN_FRONTEND=noninteractive sh -c \
        'apt-get update -qq && apt-get install -qq -y --no-install-recommends "$@" >/dev/null' sh "$@" >&2 ||
        fail 69 "apt-get failed; when it can reach its mirror, type:  $line"
}

# make_venv DIRECTORY LOCK: made again only when Python changed, filled again only when the lock did, so that a second
# start needs no network.
make_venv() {
    python=$(python3 -c 'import sys; print(sys.version)')
    stamp="$python $(sha256sum <"$2")"
    [ "$(cat "$1/stamp" 2>/dev/null)" = "$stamp" ] && return
    say "making the Python environment in $1"
    if [ "$("$1/bin/python" -c 'import sys; print(sys.version)' 2>/dev/null)" != "$python" ]; then
        rm -rf "$1"
        python3 -m venv "$1" || fail 73 "python3 -m venv failed"
    fi
    "$1/bin/pip" install --quiet --disable-pip-version-check --no-input --require-hashes --only-binary :all: \
        -r "$2" >&2 || fail 73 "pip could not install $2; its message stands above"
    printf '%s\n' "$stamp" >"$1/stamp"
}
