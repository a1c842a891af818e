# shellcheck shell=sh
# Where files of a qmail queue lie. An area is `.`, the queue itself, or a directory of ours in it (mxfleet-hold, ...),
# where every kind (mess, info, ...) is one flat directory.
#
#   enter QUEUE              makes it the current directory; sets split (conf-split), split_kinds and state, the path in
#                            /run of what a change writes about itself. False where there is no queue
#   place AREA KIND          sets base and by: the path of a file there is $base${by:+$((id % by))/}$id
#   has_any AREA ID KIND...  whether the message has one of these files there
#   find_having AREA KIND...   sets having to those of $ids that have one there, some more than once
#   keep_without AREA KIND...  takes those from $ids
#   with_files AREA KINDS WORST COMMAND...   the command with the files of $ids that are there, in lots. False when it
#                            could not be run, was ended by a signal or ended with more than WORST
#   headers_of               of messages whose paths are on stdin: "ID 0 LENGTH 0", then the header, up to $headers bytes;
#                            "ID absent". None after $budget bytes of all
#
# No program counts names here or looks for one, and nothing goes through a pipe: what died would have seen too little.
LOT=4000 # characters of paths in one command line: any host takes them, and time grows with the square of it

# shellcheck disable=SC2034 # whoever takes this in looks at state
enter() {
    cd "$1" 2>/dev/null && find_split && identity=$(stat -c %d-%i .) && state=/run/mxfleet-qmail-$identity
}

find_split() { # a number that is missing would have all later ones looked for in the wrong places
    split=0
    while [ -d "mess/$split" ]; do split=$((split + 1)); done
    for each in mess/[0-9]*; do
        case ${each#mess/} in
        *[!0-9]*) ;;
        *) [ "${each#mess/}" -lt "$split" ] || return ;;
        esac
    done
    split_kinds='mess info remote local'
    [ ! -d todo/0 ] || split_kinds="$split_kinds todo intd"
    [ "$split" -gt 0 ] && [ -d "info/$((split - 1))" ] && [ -d "remote/$((split - 1))" ] &&
        [ -d "local/$((split - 1))" ] && [ -d todo ]
}

place() {
    case "$1: $split_kinds " in
    .:*" $2 "*) base=$2/ by=$split ;;
    .:*) base=$2/ by='' ;;
    *) base=$1/$2/ by='' ;;
    esac
}

has_any() {
    name=$2
    area=$1
    shift 2
    for each; do
        place "$area" "$each"
        [ ! -e "$base${by:+$((name % by))/}$name" ] || return 0
    done
    return 1
}

find_having() {
    area=$1
    shift
    having=
    for kind; do
        place "$area" "$kind"
        for id in $ids; do
            [ ! -e "$base${by:+$((id % by))/}$id" ] || having="$having $id"
        done
    done
}

keep_without() {
    find_having "$@"
    [ -n "$having" ] || return 0
    kept=
    for id in $ids; do
        case "$having " in
        *" $id "*) ;;
        *) kept="$kept $id" ;;
        esac
    done
    ids=$kept
}

with_files() {
    area=$1
    kinds=$2
    worst=$3
    shift 3
    [ -d "$area" ] || return 0
    lot=
    for kind in $kinds; do
        place "$area" "$kind"
        for id in $ids; do
            path=$base${by:+$((id % by))/}$id
            [ -e "$path" ] || continue
            lot="$lot $path"
            [ "${#lot}" -lt "$LOT" ] || run_lot "$@" || return
        done
    done
    run_lot "$@"
}

run_lot() { # COMMAND...
    [ -n "$lot" ] || return 0
    # shellcheck disable=SC2086 # paths without blanks
    "$@" $lot
    ended=$?
    lot=
    [ "$ended" -le "$worst" ]
}

# shellcheck disable=SC2154 # headers and budget are set where this is taken in
headers_of() {
    awk -v limit="$headers" -v budget="$budget" '
        $1 == "" || is_full { next }
        {
            path = $1; size = 0; text = ""
            while ((got = (getline line <path)) > 0 && line != "" && line != "\r" && size < limit) {
                size += length(line) + 1
                text = text line "\n"
            }
            close(path)
            sub("^.*/", "", $1)
            if (got < 0) { print $1, "absent"; next }
            if (size > limit) size = limit
            printf "%s 0 %d 0\n", $1, size
            ORS = ""; print substr(text, 1, size); ORS = "\n"
            is_full = (budget -= size + 32) < 0
        }'
}
