# shellcheck shell=sh
# What a part of a pipe could not do is never taken for all that there is: a shell knows the last part's status only.
#
#   sure COMMAND...   runs it, in a pipe and in $( ) too; ends the whole script with 74 when it fails, once the pipe ends.
#                     That nobody reads on (SIGPIPE) is no failure of the writer's
#   uncut COMMAND...  only an end by a signal is a failure: where what it did and did not is seen by looking
#   seek WORDS...     grep(1), for which nothing found is no failure
#   search WORDS...   find(1), for which a file or directory that went meanwhile is no failure, as in any live queue;
#                     whoever calls it knows that the starting points are there

trap 'exit 74' USR1

sure() {
    "$@" && return
    sure_status=$?
    [ "$sure_status" -ne 141 ] || return 0
    echo "mxfleet: $* ended with $sure_status" >&2
    kill -USR1 $$
    return "$sure_status"
}

uncut() { # xargs(1) tells by 124 and more of an end by a signal, a shell by more
    "$@" && return
    uncut_status=$?
    [ "$uncut_status" -le 123 ] || return "$uncut_status"
}

seek() { grep "$@" || [ $? -eq 1 ] || return 2; }

search() {
    { search_said=$(find "$@" -ignore_readdir_race 2>&1 >&5) && return; } 5>&1
    search_status=$?
    [ "$search_status" -eq 1 ] && [ -n "$search_said" ] || return "$search_status"
    while IFS= read -r search_line; do
        case $search_line in
        "find: "*": No such file or directory") ;;
        *)
            printf '%s\n' "$search_line" >&2
            search_status=2
            ;;
        esac
    done <<END
$search_said
END
    [ "$search_status" -eq 1 ]
}
