#!/bin/sh
# qmail_watch.sh LOG <"INODE SIZE SECONDS\nID RECIPIENTS\n..."
#
# Waits, at most so long, until qmail-send's log tells how the attempts of these messages ended: "end msg ID", or as many
# deliveries as the message has recipients to do, one of them put off; after none was, its bounce and its end still come.
# LOG: a directory of multilog(8) or a file, read from where it was SIZE bytes long under that INODE. Prints the log's
# lines about these messages and their deliveries, and "end".
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=pipe.sh
. "${0%/*}/pipe.sh"
log=$1
read -r inode size seconds || exit 64
case $inode$size$seconds in
'' | *[!0-9]*) exit 64 ;;
esac
wanted=$(cat) || exit 74
case $wanted in
*[!0-9\ "
"]*) exit 64 ;;
esac
directory=$log
current=$log/current
if [ ! -d "$log" ]; then
    directory=${log%/*}
    current=$log
fi

tell_log() { # from the mark on; a log that was rotated meanwhile has its end in the new one
    old=$(find "$directory/" -ignore_readdir_race -maxdepth 1 -inum "$inode" -print -quit) || return
    [ -z "$old" ] || tail -c "+$((size + 1))" "$old" || return
    now=$(stat -c %i "$current") || return
    [ "$now" = "$inode" ] || cat "$current"
}

about_ours() { # the lines about our messages, and "over" when all attempts have ended, else "more"
    wanted=$wanted awk '
        BEGIN {
            count = split(ENVIRON["wanted"], word)
            for (at = 1; at < count; at += 2) { todo[word[at]] = word[at + 1] }
        }
        {
            start = match($0, /(starting delivery [0-9]+: msg [0-9]+ to |delivery [0-9]+: |end msg [0-9]+|bounce msg [0-9]+ qp |triple bounce: discarding bounce\/[0-9]+)/)
            if (!start) next
            count = split(substr($0, start), word, " ")
            if (word[1] == "starting") { at = word[3]; id = word[5]; if (id in todo) { of[at] = id; print } }
            else if (word[1] == "delivery") {
                at = word[2]
                if (at in of) {
                    ended[of[at]]++
                    if (word[3] !~ /^(success|failure):/) is_put_off[of[at]]
                    delete of[at]
                    print
                }
            }
            else if (word[1] == "triple") { sub("^bounce/", "", word[4]); if (word[4] in todo) print }
            else { id = word[3]; if (id in todo) { print; if (word[1] == "end") gone[id] } }
        }
        END {
            said = "over"
            for (id in todo) if (!(id in gone) && (ended[id] < todo[id] || !(id in is_put_off))) said = "more"
            print said
        }'
}

waited=0
while :; do # what cannot be read now, as while the log is rotated, may be a second later
    found=$(both tell_log about_ours) || found=
    case $found in
    *over) break ;;
    esac
    [ "$waited" -lt "$seconds" ] || break
    sleep 1
    waited=$((waited + 1))
done
[ -n "$found" ] || exit 74
printf '%s' "${found%????}"
echo end
