# shellcheck shell=sh
#
#   each_message EXIM SECONDS NUMBER COMMAND   for each ID on stdin, so many at a time, a shell runs COMMAND: "$0" is EXIM,
#                     $1 the directory $work, $2 the ID. After SECONDS no further one is begun; those under way go on.
#                     The IDs are in $work/ids then

each_message() {
    case $2 in
    '' | *[!0-9]*) exit 64 ;;
    esac
    work=$(mktemp -d) || exit 73
    trap 'rm -rf "$work"' EXIT
    trap 'exit 143' HUP INT TERM
    read_fence
    cat >"$work/ids" || exit 74
    [ "$(grep -Evc '^[0-9A-Za-z]{6}-([0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{11}-[0-9A-Za-z]{4})$' "$work/ids")" = 0 ] || exit 64
    [ -x "$1" ] || exit 127
    check_fence
    timeout --foreground "$2" xargs -n 1 -P "$3" sh -c "$4" "$1" "$work" <"$work/ids" >/dev/null 2>&1 6>&-
}
