# shellcheck shell=sh
# Sendmail's queue directories. Needs pipefail.sh and, for open_queue, a function fail STATUS WORDS.
#
#   find_queues PATTERN...   sets found to every queue directory once, one a line. Patterns as in the configuration, with
#                            a wildcard * at the end; none is no pattern
#   open_queue DIRECTORY     makes it the current one. $base, $queue and $data are from then on that directory, and
#                            those of its qf and df files: opened, so that nobody can put others in their place
#
# A queue directory may belong to Sendmail's account. A link there of the name qf or df leads root only to a directory
# of the same owner.
newline='
'

find_queues() {
    found=
    for pattern; do
        case $pattern in
        none) continue ;;
        *[!A-Za-z0-9_./*-]* | *..* | *\**/*) exit 64 ;;
        /?*) ;;
        *) exit 64 ;;
        esac
        for directory in $pattern; do
            case $directory in
            *[!A-Za-z0-9_./-]*) continue ;;
            esac
            case $newline$found in
            *"$newline$directory$newline"*) ;;
            *) [ ! -d "$directory" ] || found=$found$directory$newline ;;
            esac
        done
    done
}

base=/proc/self/fd/5/.
# shellcheck disable=SC2034 # who takes this in uses it
queue=/proc/self/fd/7/. data=/proc/self/fd/8/.

open_queue() {
    cd -P -- "$1" 2>/dev/null || fail 66 "cannot enter $1"
    exec 5<.
    enter_part qf "$1"
    exec 7<.
    cd -P "$base" || fail 66 "cannot enter $1"
    enter_part df "$1"
    exec 8<.
    cd -P "$base" || fail 66 "cannot enter $1"
}

enter_part() { # NAME QUEUE_DIRECTORY, which is the current one
    [ -d "./$1" ] || return 0
    beside=$(sure stat -c %d:%i .)
    whose=$(sure stat -c %u:%A .)
    cd -P "./$1" 2>/dev/null || fail 66 "cannot enter $2/$1"
    [ "$(sure stat -c %d:%i ..)" != "$beside" ] || return 0
    case $whose in
    0:?????w* | 0:????????w*) fail 77 "others than root can make links in $2, and $1 is one" ;;
    esac
    [ "$(sure stat -c %u .)" = "${whose%:*}" ] || fail 77 "$2/$1 is a link to a directory of another owner"
}
