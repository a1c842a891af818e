"""The table of operations and MTAs for people: `python -m fleet.mta.table >docs/operations-by-mta.md`.

It is made from the adapters, so it says what they do and nothing else.
"""

import sys

from fleet.mta import REGISTRY
from fleet.mta.adapter import Adapter, adapter_for, capability
from fleet.mta.params.catalogue import CATALOGUE, OF_HOSTS
from fleet.mta.records import Support

HEAD = """# Operations by MTA

Made from the adapters by `python -m fleet.mta.table`; a test compares them. **native**: by the MTA's own means.
**emulated**: by other means, told in the footnote, which an approver reads too. **absent**: refused before any
connection is made.
"""


def render() -> str:
    """The whole page, Markdown."""
    adapters = {mta: adapter_for(mta) for mta in REGISTRY}
    notes: list[str] = []
    lines = [HEAD, _row("operation", *adapters), _row(*["---"] * (len(adapters) + 1))]
    for name in (name for name in CATALOGUE if name not in OF_HOSTS):
        lines += [_row(f"`{name}`", *(_cell(adapter, name, notes) for adapter in adapters.values()))]
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1)), ""]
    lines += ["## Fields of the selection language", "", _row("field", *adapters), _row(*["---"] * (len(adapters) + 1))]
    for field in sorted(set().union(*(adapter.match_fields for adapter in adapters.values()))):
        marks = ("yes" if field in adapter.match_fields else "no" for adapter in adapters.values())
        lines.append(_row(f"`{field}`", *marks))
    return "\n".join(lines) + "\n"


def _cell(adapter: Adapter, name: str, notes: list[str]) -> str:
    declared = capability(adapter, name)
    word = f"**{declared.support}**" if declared.support is Support.EMULATED else str(declared.support)
    if not declared.note:
        return word
    notes.append(f"{adapter.mta}, `{name}`: {declared.note}")
    return f"{word} ({len(notes)})"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.stdout.write(render())
