# shellcheck shell=sh
# shellcheck disable=SC2154 # variables of qmail_change.sh
# Which of the messages that a change names are there, by fingerprint; needs pipe.sh, qmail_queue.sh, and $ids,
# $wanted_lines and $action.
#
#   examine AREA...   "ID left WHY" or "ID gone", then "ok ID..." for those in the first area and "held ID..." for those
#                     in a later one. False when a part of it did not end well
#   sort_out SAID     sets good and held by those lines, and tells the others
#
# Of a message that is to be removed and has no envelope any more, the removal was cut off: it goes on.
lines() {
    [ -z "$1" ] || printf '%s\n' "$1"
}

examine() {
    areas=$*
    both tell_known judge
}

# shellcheck disable=SC2034 # qmail_act.sh has them
sort_out() {
    IFS='
'
    for line in $1; do
        case $line in
        ok*) good=${line#ok} ;;
        held*) held=${line#held} ;;
        *) echo "$line" ;;
        esac
    done
    unset IFS
}

tell_known() {
    echo "= wanted"
    lines "$wanted_lines"
    for area in $areas; do
        [ -d "$area" ] || continue
        echo "= stat"
        with_files "$area" mess 0 tell_stat || return
        # shellcheck disable=SC2034 # of what is there
        kinds='info todo'
        found=$(there) || return
        in_lots "$found" 0 tell_stat || return
        echo "= envelope"
        both envelopes in_lines || return
    done
}

tell_stat() {
    stat -c '%n %i %s %.6Y' -- "$@"
}

envelopes() { # grep(1): 1 is a file without such a record
    in_lots "$found" 1 grep -azHZ '^F' --
}

in_lines() {
    tr '\000\n' '\n\001'
}

judge() {
    awk -v by_order="$areas" -v action="$action" '
        function place(path,  piece, parts) {
            parts = split(path, piece, "/")
            name = piece[parts]; area = "."; kind = piece[1]
            if (path ~ /^mxfleet-/) { kind = piece[parts - 1]; area = path; sub("/[^/]*/[^/]*$", "", area) }
        }
        function verdict(area, id,  source) {
            source = ((area, "todo", id) in has) ? "todo" : "info"
            if (is_size[area, id] != size[id] || is_time[area, id] != time[id]) return "gone"
            if (!((area, source, id) in has)) { if (action !~ /^(delete|erase)$/) return "gone" }
            else if (!((area, source, id) in from) || from[area, source, id] != sender[id]) return "gone"
            if (action != "erase" && inode[area, id] "" != id "") return "left its file has another inode"
            if (source == "todo" && action ~ /^(try|bounce)$/) return "left qmail-send has not taken it in yet"
            return "ok"
        }
        /^=/ { part = $2; next }
        part == "wanted" {
            id = $1; order[++count] = id; size[id] = $2; time[id] = $3
            sender[id] = substr($0, length($1) + length($2) + length($3) + 4)
            next
        }
        part == "stat" {
            place($1)
            if (kind == "mess") { inode[area, name] = $2; is_size[area, name] = $3; is_time[area, name] = $4 }
            else has[area, kind, name] = 1
            next
        }
        part == "envelope" {
            if (++line % 2) { place($0); next }
            if (substr($0, 1, 1) == "F" && !((area, kind, name) in from)) from[area, kind, name] = substr($0, 2)
        }
        END {
            many = split(by_order, in_order, " ")
            for (at = 1; at <= count; at++) {
                said = "gone"
                for (which = 1; which <= many && said == "gone"; which++) said = verdict(in_order[which], order[at])
                if (said != "ok") print order[at], said
                else if (which > 2) held = held " " order[at]
                else good = good " " order[at]
            }
            print "ok" good
            print "held" held
        }'
}
