# shellcheck shell=sh
# A pipe of which no part fails unseen: the shell tells how the last part of a|b ended, and what a killed one did not
# write is missing without a word.
#
#   both FIRST SECOND   FIRST | SECOND, two functions of the script, each in a shell of its own. False unless both were
#                       true; so also when one of those shells was ended by a signal. SECOND reads to the end.
both() {
    {
        ended=$({ { "$1" 3>&- 4>&- && echo first >&4; } | { "$2" >&3 3>&- 4>&- && echo second >&4; }; } 4>&1)
    } 3>&1
    [ "$ended" = "first
second" ]
}
