"""parallel-ssh on warm connections: `peer_pssh.py FARM PORT COMMAND`; asked and answering as peer_asyncssh.py."""

import resource
import sys
import time

from pssh.clients import ParallelSSHClient

directory, port, line = sys.argv[1], int(sys.argv[2]), sys.argv[3]
clients = {}

while request := sys.stdin.readline():
    count = int(request)
    hosts = [f"127.77.{n // 250}.{n % 250 + 1}" for n in range(count)]
    if count not in clients:
        clients[count] = ParallelSSHClient(
            hosts, user="root", port=port, pkey=f"{directory}/client", pool_size=count, allow_agent=False
        )
        clients[count].join(clients[count].run_command(line))
    usage, begun = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    output = clients[count].run_command(line)
    clients[count].join(output)
    answered = [(list(host.stdout), host.exit_code) for host in output]
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF)
    assert all(status == 0 for _, status in answered)
    print(wall, after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime, flush=True)
