"""Raw asyncssh on warm connections, as little as it can be: `peer_asyncssh.py FARM PORT COMMAND`.

For each line of stdin, a count, it runs the command on that many addresses and answers with wall and CPU seconds.
"""

import asyncio
import resource
import sys
import time

import asyncssh


class Session(asyncssh.SSHClientSession):
    def __init__(self):
        self.ended = asyncio.get_running_loop().create_future()
        self.size = 0

    def data_received(self, data, datatype):
        self.size += len(data)

    def exit_status_received(self, status):
        self.status = status

    def connection_lost(self, exc):
        self.ended.set_result(None)


async def command(connection, line):
    session = Session()
    channel, _ = await connection.create_session(lambda: session, line, encoding=None)
    channel.write_eof()
    await session.ended
    assert session.status == 0
    assert session.size or line == "true"


async def main(directory, port, line):
    options = asyncssh.SSHClientConnectionOptions(
        username="root", client_keys=[asyncssh.read_private_key(f"{directory}/client")],
        known_hosts=asyncssh.read_known_hosts(f"{directory}/known_hosts"), host_key_alias="farm",
        config=None, agent_path=None, gss_host=None, encryption_algs=["aes128-gcm@openssh.com"],
        kex_algs=["curve25519-sha256"],
    )  # fmt: skip
    connections = {}
    logins = asyncio.Semaphore(32)

    async def warm(address):
        async with logins:
            connections[address] = await asyncssh.connect(address, port, options=options)

    while request := await asyncio.to_thread(sys.stdin.readline):
        addresses = [f"127.77.{n // 250}.{n % 250 + 1}" for n in range(int(request))]
        await asyncio.gather(*(warm(address) for address in addresses if address not in connections))
        usage, begun = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        await asyncio.gather(*(command(connections[address], line) for address in addresses))
        wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF)
        print(wall, after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime, flush=True)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
