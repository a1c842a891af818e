"""What an administrator's own script does with listings: `judge.py FILE...` (or stdin) sorts the matches."""

import fileinput
import json
import re

WANTED = re.compile(r"news-1@bulk8\.example$", re.IGNORECASE)
found = []
total = 0
with fileinput.input() as lines:
    for line in lines:
        message = json.loads(line)
        total += 1
        if WANTED.match(message["sender"]):
            found.append((message["arrival_time"], message["queue_id"]))
found.sort()
print(total, len(found))
