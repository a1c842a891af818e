#!/bin/sh
# qmail_list.sh QUEUE [anyway] <"MOST BUDGET\n[ID\n...end\n]"
#
# Everything a listing needs from the files of a qmail queue, while qmail-send runs or not, and from mxfleet-hold beside
# them; of the messages with these IDs alone, if there are any. Pairs of words, each ended by a NUL, which no address can contain (qmail-queue(8)):
#   ":group" SECONDS         the files of some of the split directories follow, as they are from then on
#   PATH RECORD              a record of info/, remote/, local/ or todo/
#   "=PATH" SIZE             of a file in info/, remote/, local/ or todo/
#   "@PATH" "SIZE MTIME"     of a file in mess/
#   ":again" ID              it was in todo/ meanwhile: what was said of it is void, and is said anew
#   ":headers" ""            text follows, no pairs: "ID 0 LENGTH 0" and so many bytes of header, of each message; its last
#                            line is "end". Only with a line on stdin: MOST bytes of each, about BUDGET of all
#   ":done" ""               the group is complete
#   ":cut" PHASE             a change was cut off and nobody lives who puts it right: "stopped", or "acting" with files half
#                            moved. Nothing is listed then, except anyway; the change script's look puts it right.
#   ":end" SPLIT             the last pair; told only when every part of the listing ended well
# Records are read before the times and sizes, so a size that does not fit tells a file that was being written.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
state=
# shellcheck source=pipe.sh
. "${0%/*}/pipe.sh"
# shellcheck source=qmail_queue.sh
. "${0%/*}/qmail_queue.sh"

fail() {
    echo "qmail_list: $2" >&2
    exit "$1"
}

# xargs(1): up to 123 is a word of the program, as for a file that went meanwhile. Names are numbers, so it quotes none.
records() { # paths on stdin
    xargs -r grep -azHZse '' --
    [ $? -le 123 ]
}

sizes() {
    xargs -r stat --printf '=%n\0%s\0' -- 2>/dev/null
    [ $? -le 123 ]
}

sizes_and_times() {
    xargs -r stat --printf '@%n\0%s %.9Y\0' -- 2>/dev/null
    [ $? -le 123 ]
}

paths() { # of $kinds, of the messages $seen in $area
    places=
    for kind in $kinds; do
        place "$area" "$kind"
        # shellcheck disable=SC2154 # by place
        places="$places $base ${by:-0}"
    done
    both tell_seen in_places
}

in_places() {
    # shellcheck disable=SC2154 # by qmail_queue.sh
    awk -v places="$places" "$remainder"'
        BEGIN { count = split(places, word, " ") }
        {
            for (at = 1; at < count; at += 2) {
                print word[at] (word[at + 1] ? remainder($1, word[at + 1]) "/" : "") $1
            }
        }'
}

tell_files() { # of the messages $seen in $area; what is preprocessed meanwhile was in todo/ first
    kinds=todo
    both paths records || unreadable
    kinds='info remote local'
    both paths records || unreadable
    kinds='todo info remote local'
    both paths sizes || unreadable
    kinds=mess
    both paths sizes_and_times || unreadable
}

look_into_todo() { # sets seen
    # shellcheck disable=SC2086 # words of ours
    seen=$(find $todo -ignore_readdir_race -maxdepth 1 -type f -name '[1-9]*' ! -name '*[!0-9]*' -printf '%f\n') || unreadable
    [ -z "$seen" ] || seen=$(both tell_seen of_group) || unreadable
}

tell_seen() {
    printf '%s\n' "$seen"
}

of_group() {
    # shellcheck disable=SC2154 # by enter
    awk -v by="$split" -v first="$first" -v last="$last" "$remainder"'
        { number = remainder($1, by) }
        number >= first && number <= last'
}

envelope_files() {
    # shellcheck disable=SC2086
    find $envelopes -ignore_readdir_race -maxdepth 1 -type f -name '[1-9]*' ! -name '*[!0-9]*'
}

tell_both() {
    printf '%s\n' "$before" "$after"
}

unique() {
    sort -u
}

unreadable() { fail 74 "the queue cannot be read: a part of the listing failed or was ended by a signal"; }

begin_group() {
    now=$(date +%s) || unreadable
    printf ':group\000%s\000' "$now"
}

group() { # the split directories from $first to $last
    begin_group
    todo='' envelopes='' messages=''
    number=$first
    while [ "$number" -le "$last" ]; do
        todo="$todo todo/$number"
        envelopes="$envelopes info/$number remote/$number local/$number"
        messages="$messages mess/$number"
        number=$((number + 1))
    done
    [ -d todo/0 ] || todo=todo
    look_into_todo
    before=$seen
    both envelope_files records || unreadable
    # shellcheck disable=SC2086
    find $envelopes -ignore_readdir_race -maxdepth 1 -type f -name '[1-9]*' -printf '=%p\0%s\0' || unreadable
    # shellcheck disable=SC2086
    find $messages -ignore_readdir_race -maxdepth 1 -type f -name '[1-9]*' -printf '@%p\0%s %T@\0' || unreadable
    look_into_todo
    after=$seen
    [ -z "$before$after" ] || again
    tell_headers
    printf ':done\000\000'
}

again() { # what was in todo/
    seen=$(both tell_both unique) || unreadable
    for id in $seen; do printf ':again\000%s\000' "$id"; done
    area=.
    tell_files
}

message_files() {
    # shellcheck disable=SC2086
    find $messages -ignore_readdir_race -maxdepth 1 -type f -name '[1-9]*' ! -name '*[!0-9]*'
}

tell_headers() {
    [ "$headers" -gt 0 ] || return 0
    printf ':headers\000\000'
    both message_files headers_of || unreadable
    echo end
}

held_files() {
    find mxfleet-hold -mindepth 2 -maxdepth 2 -type f -name '[1-9]*' ! -path '*/mess/*' ! -path '*/bounce/*' \
        ! -path '*/intd/*' ! -name '*[!0-9]*'
}

held() {
    begin_group
    both held_files records || unreadable
    find mxfleet-hold -mindepth 2 -maxdepth 2 -type f -name '[1-9]*' \( -path '*/mess/*' -printf '@%p\0%s %T@\0' \
        -o -printf '=%p\0%s\0' \) || unreadable
    messages=mxfleet-hold/mess
    [ ! -d "$messages" ] || tell_headers
    printf ':done\000\000'
}

named() { # the messages $seen, wherever they are
    for area in . mxfleet-hold; do
        [ -d "$area" ] || continue
        begin_group
        tell_files
        printf ':done\000\000'
    done
}

is_abandoned() { # whoever works on the queue, or will put it right, has the job lock
    [ -s "$state.state" ] || return 1
    (flock -n 8 && [ -s "$state.state" ]) 8>>"$state.lock" || return 1
    read -r phase before <"$state.state" && [ -n "$phase$before" ]
}

headers=0
budget=0
read -r headers budget || :
case $headers$budget in
*[!0-9]*) fail 64 "bad limits" ;;
esac
: "${headers:=0}" "${budget:=0}"
seen=$(cat) || fail 74 "the queue IDs cannot be read"
case $seen in
'') ;;
*[!0-9]end)
    seen=${seen%?end}
    case $seen in
    '' | *[!0-9"
"]*) fail 64 "bad queue IDs" ;;
    esac
    ;;
*) fail 64 "the queue IDs were cut off" ;;
esac
enter "$1" || fail 66 "no queue in $1"
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
    phase=
    [ ! -e "$state.state" ] || read -r phase before <"$state.state"
    [ "$phase" = acting ] || break
    [ "$waited" -lt 20 ] || fail 75 "a change was cut off and is not put right yet"
    flock -u 9
    sleep 1
    waited=$((waited + 1))
done

if [ -n "$seen" ]; then
    named
    printf ':end\000%s\000' "$split"
    exit 0
fi
# Some thousand messages a group: each takes a dozen processes here, and is held in memory where it is read.
set -- mess/0/*
size=$((1 + 5000 / $#))
# shellcheck disable=SC2034 # headers_of looks at it, once for each group
budget=$((budget / (1 + split / size)))
first=0
while [ "$first" -lt "$split" ]; do
    last=$((first + size - 1))
    [ "$last" -lt "$split" ] || last=$((split - 1))
    group
    first=$((last + 1))
done
[ ! -d mxfleet-hold ] || held
printf ':end\000%s\000' "$split"
