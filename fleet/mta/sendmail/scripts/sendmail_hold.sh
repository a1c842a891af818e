# shellcheck shell=sh
# shellcheck disable=SC2154 # sendmail_change.sh sets them
# sendmail_change.sh's hold and release: the queue files of $work/mine, which are locked, with another text under another
# name.

rewrite() { # q line, or "" for none: the queue files as they shall be, in $staged, with owner and mode of the old ones
    cd -P "$base" || fail 66 "cannot enter $directory"
    made=$(mktemp -d ./mxfleet-staged.XXXXXX) || fail 73 "cannot write in $directory"
    enter "$made"
    staged=$base/$made
    [ -z "$(sure ls -A)" ] || fail 77 "$made is not ours"
    awk -v queue="$queue" -v letter="$letter" -v reason="$1" '
        {
            path = queue "/" letter "f" $1; new = "qf" $1
            if (reason == "") reasoned = 1; else reasoned = 0
            while ((getline line < path) > 0) {
                code = substr(line, 1, 1)
                if (code == "q") continue
                if (code == "S" && !reasoned) { print reason >new; reasoned = 1 }
                print line >new
            }
            close(path)
            if (close(new) != 0) exit 1
        }' "$work/mine" || fail 74 "the new queue files could not be written"
    # A disk that is full shows here at the latest: the last line of every file must be there.
    awk '
        { path = "qf" $1; last = ""; while ((getline line < path) > 0) last = line; close(path); if (last != ".") exit 1 }
        ' "$work/mine" || fail 74 "the new queue files could not be written"
    { chown "$owner" ./qf* && chmod "$mode" ./qf* && sync ./qf*; } || fail 74 "the new queue files could not be written"
}

put_back_text() { mv -f -- qf* "$queue/" || fail 74 "the new queue files could not be moved"; }

clear_staged() {
    cd / || fail 73 "cannot leave $staged"
    rm -rf "$staged"
    staged=
}

# --no-copy does not exist everywhere; both names are in one directory, so this is rename(2).
rename() { # FROM TO: letters
    while read -r id; do
        if [ -e "$queue/$1f$id" ]; then mv -nT -- "$queue/$1f$id" "$queue/$2f$id"; fi
        if [ -e "$queue/$1f$id" ]; then say failed "$id"; else say "done" "$id"; fi
    done <"$work/mine"
}

change_hold() {
    if [ "$letter" = h ]; then # by somebody since it was listed: ours only with our word in it
        while read -r id; do
            ours=$(seek -m 1 -xF -- "qmxfleet $job" "$queue/hf$id") || fail 74 "a queue file could not be read"
            if [ -n "$ours" ]; then say "done" "$id"; else say already "$id"; fi
        done <"$work/mine"
        return
    fi
    same_system "$queue" "$base" || fail 75 "another file system"
    rewrite "qmxfleet $job"
    put_back_text
    rename q h >"$work/renamed"
    sure sync "$queue"
    sure cat "$work/renamed"
    clear_staged
}

change_release() {
    same_system "$queue" "$base" || fail 75 "another file system"
    rewrite ""
    if [ "$letter" = h ]; then
        rename h q
    else
        while read -r id; do say "done" "$id"; done <"$work/mine"
    fi >"$work/renamed"
    # What could not be renamed keeps its text.
    while read -r id word; do
        [ "$word" = "done" ] || rm -f -- "qf$id" || fail 74 "a text could not be removed"
    done <"$work/renamed"
    set -- qf*
    [ ! -e "$1" ] || put_back_text
    sure sync "$queue"
    sure cat "$work/renamed"
    clear_staged
}
