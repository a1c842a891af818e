# shellcheck shell=sh
# Where files of a qmail queue lie. An area is `.`, the queue itself, or a directory of ours in it, such as mxfleet-hold:
# there every kind (mess, info, ...) is one flat directory.
#
#   enter QUEUE              makes it the current directory; sets split (conf-split), split_kinds and state, the path in
#                            /run of what a change writes about itself. False where there is no queue
#   locate AREA KIND ID      sets path, and at, the number of its directory
#   has_any AREA ID KIND...  whether the message has one of these files there
#   keep_without AREA KIND...  sets ids to those of $ids that have none of them there
#   with_files AREA KINDS WORST COMMAND...   the command with the files of $ids that are there, in lots. False when it could
#                            not be run, was ended by a signal or ended with more than WORST
#
# No program counts or looks for a name here, and nothing goes through a pipe: what died would have seen less than there is.
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

locate() {
    at=0
    path=$1/$2/$3
    [ "$1" = . ] || return 0
    path=$2/$3
    case " $split_kinds " in
    *" $2 "*)
        at=$(($3 % split))
        path=$2/$at/$3
        ;;
    esac
}

has_any() {
    area=$1
    name=$2
    shift 2
    for each; do
        locate "$area" "$each" "$name"
        [ ! -e "$path" ] || return 0
    done
    return 1
}

keep_without() {
    within=$1
    shift
    kept=
    for id in $ids; do
        has_any "$within" "$id" "$@" || kept="$kept $id"
    done
    ids=$kept
}

with_files() {
    area=$1
    kinds=$2
    worst=$3
    shift 3
    lot=
    for kind in $kinds; do
        for id in $ids; do
            locate "$area" "$kind" "$id"
            [ ! -e "$path" ] || lot="$lot $path"
            [ "${#lot}" -lt 20000 ] || run_lot "$@" || return
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
