#!/bin/sh
# qmail_list.sh QUEUE [anyway]
#
# Everything a listing needs from the files of a qmail queue, while qmail-send runs or not, and from mxfleet-hold beside
# them. Pairs of words, each ended by a NUL, which no address can contain (qmail-queue(8)):
#   ":group" SECONDS         the files of some of the split directories follow, as they are from then on
#   PATH RECORD              a record of info/, remote/, local/ or todo/
#   ":stat" "PATH INODE SIZE MTIME"
#   ":again" ID              it was in todo/ meanwhile: what was said of it is void, and is said anew
#   ":done" ""               the group is complete
#   ":cut" PHASE             a change was cut off and nobody lives who puts it right: "stopped", or "acting" with files half
#                            moved. Nothing is listed then, except anyway; the change script's look puts it right.
#   ":end" SPLIT             the last pair
# Records are read before the times and sizes, so a size that does not fit tells a file that was being written.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
state=

fail() {
    echo "qmail_list: $2" >&2
    exit "$1"
}

records() { # paths on stdin, each ended by a NUL
    xargs -0 -r grep -azHZse '' --
    return 0
}

paths() { # DIRECTORY...: an ID per line on stdin, the files' paths in each of them
    awk -v split_by="$split" -v is_big="$big" -v places="$*" '
        BEGIN { count = split(places, place, " ") }
        { for (at = 1; at <= count; at++) {
            part = place[at] == "todo" && !is_big ? "" : $1 % split_by "/"
            printf "%s/%s%s\n", place[at], part, $1
        } }' | tr '\n' '\000'
}

todo_names() { # FIRST LAST: IDs in todo/ whose split directory is one of these
    if [ "$big" = 1 ]; then
        at=$1
        while [ "$at" -le "$2" ]; do
            find "todo/$at" -ignore_readdir_race -maxdepth 1 -type f -name '[1-9]*' -printf '%f\n' || exit
            at=$((at + 1))
        done
    else
        find todo -ignore_readdir_race -maxdepth 1 -type f -name '[1-9]*' -printf '%f\n'
    fi | grep '^[0-9]*$' | awk -v by="$split" -v first="$1" -v last="$2" '$1 % by >= first && $1 % by <= last'
}

group() { # FIRST LAST
    printf ':group\000%s\000' "$(date +%s)"
    before=$(todo_names "$1" "$2") || fail 74 "todo/ cannot be read"
    at=$1
    envelopes=
    messages=
    while [ "$at" -le "$2" ]; do
        envelopes="$envelopes info/$at remote/$at local/$at"
        messages="$messages mess/$at"
        at=$((at + 1))
    done
    # shellcheck disable=SC2086 # words of ours
    find $envelopes -ignore_readdir_race -maxdepth 1 -type f -name '[1-9]*' -print0 | records
    # shellcheck disable=SC2086
    find $envelopes $messages -ignore_readdir_race -maxdepth 1 -type f -name '[1-9]*' \
        -printf ':stat\0%p %i %s %T@\0' || fail 74 "the queue cannot be read"
    after=$(todo_names "$1" "$2") || fail 74 "todo/ cannot be read"
    if [ -n "$before$after" ]; then
        seen=$(printf '%s\n%s\n' "$before" "$after" | sed '/^$/d' | sort -u)
        printf '%s\n' "$seen" | while read -r id; do printf ':again\000%s\000' "$id"; done
        printf '%s\n' "$seen" | paths todo | records
        printf '%s\n' "$seen" | paths info remote local | records
        printf '%s\n' "$seen" | paths mess todo info remote local |
            xargs -0 -r stat --printf ':stat\0%n %i %s %.9Y\0' -- 2>/dev/null
    fi
    printf ':done\000\000'
}

held() {
    printf ':group\000%s\000' "$(date +%s)"
    find mxfleet-hold -mindepth 2 -maxdepth 2 -type f -name '[1-9]*' ! -path '*/mess/*' ! -path '*/bounce/*' \
        ! -path '*/intd/*' -print0 | records
    find mxfleet-hold -mindepth 2 -maxdepth 2 -type f -name '[1-9]*' -printf ':stat\0%p %i %s %T@\0' ||
        fail 74 "mxfleet-hold cannot be read"
    printf ':done\000\000'
}

is_abandoned() { # whoever works on the queue, or will put it right, has the job lock
    [ -s "$state.state" ] || return 1
    (flock -n 8 && [ -s "$state.state" ]) 8>>"$state.lock" || return 1
    read -r phase before <"$state.state" && [ -n "$phase$before" ]
}

cd "$1" 2>/dev/null && [ -d mess ] && [ -d info ] && [ -d todo ] || fail 66 "no queue in $1"
split=$(find mess -mindepth 1 -maxdepth 1 -type d -name '[0-9]*' -printf '%f\n' | grep -c '^[0-9]*$')
[ "$split" -gt 0 ] && [ -d "mess/$((split - 1))" ] || fail 66 "mess/ has no split directories"
big=0
[ ! -d todo/0 ] || big=1

state=/run/mxfleet-qmail-$(stat -c %d-%i .)
# Changes move files under an exclusive lock; one that was cut off is put right by its guardian within a moment.
exec 9>>"$state.acting" || fail 73 "cannot open $state.acting"
waited=0
while :; do
    flock -s -w 60 9 || fail 75 "another change is moving messages"
    if is_abandoned; then
        printf ':cut\000%s\000' "$phase"
        [ "${2-}" = anyway ] || {
            printf ':end\000%s\000' "$split"
            exit 0
        }
        break
    fi
    case $(cat "$state.state" 2>/dev/null) in
    acting*) ;;
    *) break ;;
    esac
    [ "$waited" -lt 20 ] || fail 75 "a change was cut off and is not put right yet"
    flock -u 9
    sleep 1
    waited=$((waited + 1))
done

size=$(((split + 11) / 12))
first=0
while [ "$first" -lt "$split" ]; do
    last=$((first + size - 1))
    [ "$last" -lt "$split" ] || last=$((split - 1))
    group "$first" "$last"
    first=$((last + 1))
done
[ ! -d mxfleet-hold ] || held
printf ':end\000%s\000' "$split"
