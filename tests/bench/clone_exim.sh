#!/bin/sh
# clone_exim.sh SENDER SPAM OTHER OTHERS: copies the queued message of each sender so often, with new IDs and with numbers
# from 10000 on in the subject.
set -eu
cd /var/spool/exim4/input
clone() { # SENDER FIRST COUNT
    head=$(find . -name '*-H' -exec grep -l "^<$1>" {} + | head -n 1)
    name=${head##*/}
    body=${head%-H}-D
    log=../msglog/${head#./}
    log=${log%-H}
    awk -v old="${name%-H}" -v dir="${head%/*}" -v first="$2" -v count="$3" -v body="$body" -v msglog="$log" '
        { gsub(old, "@ID@") }
        FILENAME == msglog { said = said $0 "\n"; next }
        FILENAME == body { text = text $0 "\n"; next }
        { envelope = envelope $0 "\n" }
        END {
            for (at = first; at < first + count; at++) {
                id = substr(old, 1, 7) "0" (20000 + at) substr(old, 14)
                one = envelope; gsub("@ID@", id, one); sub("letter 00000", "letter " (10000 + at), one)
                two = text; sub("@ID@", id, two)
                printf "%s", one >(dir "/" id "-H"); close(dir "/" id "-H")
                printf "%s", two >(dir "/" id "-D"); close(dir "/" id "-D")
                printf "%s", said >("../msglog/" dir "/" id); close("../msglog/" dir "/" id)
            }
        }' "$head" "$body" "$log"
}
clone "$1" 0 "$2"
clone "$3" "$2" "$4"
find . ../msglog -type f -exec chown Debian-exim:Debian-exim {} + -exec chmod 640 {} +
