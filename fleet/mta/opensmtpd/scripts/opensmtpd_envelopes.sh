# shellcheck shell=sh
# shellcheck disable=SC2154 # $smtpctl and $work are the script's
#
#   look      the envelopes that are queued now, "ID CREATED EVPID PAUSED STATE" each; false when smtpctl broke off
# shellcheck disable=SC2016
envelopes='{ # a sender may contain bars, but no address two @
        if (split($0, field, "|") < 14) next
        rest = $0
        for (at = 0; at < 4; at++) rest = substr(rest, index(rest, "|") + 1)
        for (at = 0; at < 3; at++) {
            if (!match(rest, /^[^@]*@[^@|]*\|/)) next
            rest = substr(rest, RLENGTH + 1)
        }
        split(rest, last, "|")
        print substr($0, 1, 8), last[1], field[1], (("," field[4] ",") ~ /,suspend,/) ? "paused" : "free", last[5]
    }'

look() {
    { "$smtpctl" show queue && echo '~end'; } >"$work/queue" || return
    [ "$(tail -n 1 "$work/queue")" = '~end' ] && awk "$envelopes" "$work/queue"
}
