# shellcheck shell=sh
# Directories in which root can write though they, or those above them, belong to others. Needs a function fail STATUS WORDS.
#
#   go_to DIRECTORY   makes it the current one, when nobody but root (or this account) can exchange a directory on the way
#   make_ours NAME    makes a directory in the current one for us alone, when there is none, and enters it
#   enter NAME        enters a directory there that is ours alone, and nothing that was put in its place
#
# What was entered stays the current directory, whoever renames it, and in it nobody else can exchange a name.

go_to() {
    odd=$({ namei -mo -- "$1" || [ $? -eq 1 ] && echo whole; } | awk -v me="$(id -un)" '
        $0 == "whole" { whole = 1; next }
        NR == 1 { next }
        {
            is_ours = $2 == "root" || $2 == me
            if (above && (loose || (sticky && !is_ours))) { print above; told = 1; exit }
        }
        $1 ~ /^d/ {
            above = $NF
            is_open = substr($1, 6, 1) == "w" || substr($1, 9, 1) == "w"
            sticky = is_open && $1 ~ /[tT]$/
            loose = !is_ours || (is_open && !sticky)
        }
        END { if (!told && whole && above) print "none/" }')
    case $odd in
    none/) ;;
    '') fail 70 "namei does not tell of the directories above $1" ;;
    *) fail 66 "$1 can be exchanged: others than root may write in $odd above it" ;;
    esac
    cd -P -- "$1" 2>/dev/null || fail 66 "cannot enter $1"
}

make_ours() {
    [ -e "./$1" ] || [ -L "./$1" ] || mkdir -m 700 "./$1" || fail 73 "cannot make $1"
    enter "$1"
}

enter() {
    beside=$(stat -c %d:%i .)
    cd -P "./$1" 2>/dev/null || fail 73 "cannot enter $1"
    case "$(stat -c '%F %u %a' .) $(stat -c %d:%i ..)" in
    "directory $(id -u) 700 $beside" | "directory $(id -u) 2700 $beside") ;;
    *) fail 77 "$1 is not ours" ;;
    esac
}
