#!/bin/sh
# clone_sendmail.sh SENDER SPAM OTHER OTHERS: copies the queued message of each sender so often, in q1 to q4, with new IDs
# and with numbers from 10000 on in the subject.
set -eu
cd /var/spool/mqueue
clone() { # SENDER FIRST COUNT
    qf=$(grep -l "^S<$1>" q*/qf* | head -n 1)
    id=${qf#*/qf}
    body=${qf%/*}/df$id
    awk -v old="$id" -v first="$2" -v count="$3" -v body="$body" '
        FILENAME == body { text = text $0 "\n"; next }
        { gsub(old, "@ID@"); envelope = envelope $0 "\n" }
        END {
            for (at = first; at < first + count; at++) {
                id = substr(old, 1, 8) (200000 + at); queue = "q" (1 + at % 4); one = envelope
                gsub("@ID@", id, one); sub("letter 00000", "letter " (10000 + at), one)
                printf "%s", one >(queue "/qf" id); close(queue "/qf" id)
                printf "%s", text >(queue "/df" id); close(queue "/df" id)
            }
        }' "$qf" "$body"
}
clone "$1" 0 "$2"
clone "$3" "$2" "$4"
find q* -type f -exec chmod 640 {} +
