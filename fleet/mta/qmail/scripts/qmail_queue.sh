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
#   there                    the paths of the files of $ids in $area of $kinds that are there, a line for each lot. False
#                            when it was ended by a signal
#   in_lots LOTS WORST COMMAND...   the command with the words of each of these lines behind it. False when it could not
#                            be run, was ended by a signal or ended with more than WORST
#   with_files AREA KINDS WORST COMMAND...   the same with the files of $ids that are there
#   remainder                for awk: remainder(ID, BY), also of a number with more digits than awk reckons with
#   headers_of               of messages whose paths are on stdin: "ID 0 LENGTH 0", then the header, up to $headers bytes;
#                            "ID absent". None after $budget bytes of all
#
# No program counts names here or looks for one, and no pipe ends unseen: what died would have seen too little. No list
# of paths grows word by word: a shell copies all of it, a character at a time, for each.
LOT=1000 # paths in one command line: any host takes them
# shellcheck disable=SC2034 # whoever takes this in gives it to awk
remainder='
    function remainder(id, by,  low) {
        low = length(id) > 9 ? substr(id, length(id) - 8) : id
        return (substr(id, 1, length(id) - length(low)) % by * (1000000000 % by) + low) % by
    }'

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

there() {
    number=0
    for kind in $kinds; do
        place "$area" "$kind"
        for id in $ids; do
            path=$base${by:+$((id % by))/}$id
            [ -e "$path" ] || continue
            number=$((number + 1))
            if [ $((number % LOT)) -eq 0 ]; then echo "$path"; else printf '%s ' "$path"; fi
        done
    done
}

in_lots() {
    lots=$1
    worst=$2
    shift 2
    IFS='
'
    for lot in $lots; do
        unset IFS
        # shellcheck disable=SC2086 # paths without blanks
        "$@" $lot
        [ $? -le "$worst" ] || return
    done
    unset IFS
}

with_files() {
    area=$1
    kinds=$2
    most=$3
    shift 3
    [ -d "$area" ] || return 0
    found=$(there) || return
    in_lots "$found" "$most" "$@"
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
