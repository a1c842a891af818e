#!/bin/sh
# qmail_content.sh QUEUE <"BUDGET HEADERS BODY\nID\nID..."
#
# Reads messages of a qmail queue, held ones too, many at once, about BUDGET bytes of them. With BODY 0 the headers alone,
# up to HEADERS bytes: "ID 0 LENGTH 0", then the bytes. With BODY the first HEADERS + BODY bytes of each file: "ID SIZE" for
# each, an empty line, then each as head(1) -v shows it, which its size makes unambiguous. "ID absent" for a message that
# is not queued. The last line is "end".
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"

fail() {
    echo "qmail_content: $2" >&2
    exit "$1"
}

cd "$1" 2>/dev/null && [ -d mess/0 ] || fail 66 "no queue in $1"
split=$(find mess -mindepth 1 -maxdepth 1 -type d -name '[0-9]*' -printf '%f\n' | grep -c '^[0-9]*$')
read -r budget headers body || fail 64 "no limits"
case $budget$headers$body in
*[!0-9]*) fail 64 "bad limits" ;;
esac
ids=$(cat)
case $ids in
*[!0-9"
"]*) fail 64 "bad queue ID" ;;
esac
# Every message has two places; what neither has is absent.
sizes=$(printf '%s\n' "$ids" | awk -v by="$split" '$1 != "" { print "mess/" $1 % by "/" $1; print "mxfleet-hold/mess/" $1 }' |
    xargs -r stat -c '%n %s' -- 2>/dev/null)
printf '%s\n.\n%s\n' "$sizes" "$ids" | awk '
    $1 == "." { rest = 1; next }
    !rest { sub("^.*/", "", $1); has[$1]; next }
    $1 != "" && !($1 in has) { print $1, "absent" }'
if [ "$body" -eq 0 ]; then
    printf '%s\n' "$sizes" | awk -v limit="$headers" -v budget="$budget" '
        $1 == "" { next }
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
            if ((budget -= size + 32) < 0) exit
        }'
else
    limit=$((headers + body))
    chosen=$(printf '%s\n' "$sizes" | awk -v limit="$limit" -v budget="$budget" '
        $1 == "" { next }
        { print; if ((budget -= ($2 < limit ? $2 : limit) + 64) < 0) exit }')
    printf '%s\n' "$chosen" | sed '/^$/d'
    echo
    printf '%s\n' "$chosen" | sed -e '/^$/d' -e 's/ .*//' | xargs -r head -v -c "$limit" -- 2>/dev/null
fi
echo end
