#!/bin/sh
# exim_content.sh SPOOL_DIRECTORY <"BUDGET HEADERS BODY\nID\nID..."
#
# Reads messages of the main queue: headers from -H without Exim's counts and without those that it took out, bodies
# from -D, up to so many bytes of each. Every message is announced by the lengths that follow ("ID 0 H B", then the
# bytes), so nothing inside it can pose as the next one. "ID absent" when it is not queued. Stops after BUDGET bytes;
# the last line is "end". Changes nothing. Follows no link that Exim's account could have put in the place of a file.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
read -r budget headers body || exit 64
case $budget$headers$body in
'' | *[!0-9]*) exit 64 ;;
esac
work=$(mktemp -d) || exit 73
trap 'rm -rf "$work"' EXIT
trap 'exit 143' HUP INT TERM
cat >"$work/ids" || exit 74
[ "$(grep -Evc '^[0-9A-Za-z]{6}-([0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{11}-[0-9A-Za-z]{4})$' "$work/ids")" = 0 ] || exit 64
cd "$1" || exit 66
[ -d input ] || mkdir "$work/input"
cd input 2>/dev/null || cd "$work/input" || exit 66

# shellcheck disable=SC2016
tell='
function header_of(id,  file, line, left, skip, kind, at) {
    text = ""; kept = 0; has_end = 0
    file = id "-H"
    if (!(file in places)) return 0
    file = places[file] "/" file
    if ((getline line < file) <= 0) return 0
    skip = 0
    while ((getline line < file) > 0) {
        if (skip > 0) { skip -= length(line) + 1; continue }
        if (line ~ /^--?(\([^)]*\))?acl[cm]? [^ ]+ [0-9]+$/) { skip = substr(line, match(line, /[0-9]+$/)) + 1; continue }
        if (line == "") { has_end = 1; break }
    }
    left = 0
    while (has_end && kept <= limit && (getline line < file) > 0) {
        if (left <= 0) {
            if (!match(line, /^[0-9]+/)) break
            left = substr(line, 1, RLENGTH) + 0
            kind = substr(line, RLENGTH + 1, 1)
            line = substr(line, RLENGTH + 3)
        }
        left -= length(line) + 1
        if (kind == "*") continue
        text = text line "\n"
        kept += length(line) + 1
    }
    close(file)
    text = substr(text, 1, limit)
    return 1
}
FILENAME == ARGV[1] { if ($2 ~ /^\.(\/[0-9A-Za-z])?$/) places[$1] = $2; next }
{
    if (!header_of($1)) { print $1 " absent"; next }
    many = 0
    file = $1 "-D"
    if (body > 0 && file in places) {
        command = "dd if=" places[file] "/" file " iflag=nofollow,skip_bytes,count_bytes skip=" length($1) + 3 \
            " count=" body " bs=65536 status=none >" work "/body 2>/dev/null; [ $? -lt 126 ] && wc -c <" work "/body"
        if ((command | getline many) <= 0) exit 74
        close(command)
    }
    printf "%s 0 %d %d\n%s", $1, length(text), many, text
    if (many > 0) { fflush(); if (system("cat " work "/body")) exit 74 }
    used += length(text) + many + 64
    if (used >= budget) exit
}'
sure search . -maxdepth 2 -type f -name '*-[HD]' -printf '%f %h\n' >"$work/files"
sure awk -v work="$work" -v budget="$budget" -v limit="$headers" -v body="$body" "$tell" "$work/files" "$work/ids"
echo end
