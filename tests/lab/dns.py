"""A DNS server for the lab's few names. Everything else is NXDOMAIN at once: a slow look-up would stall every MTA."""

from __future__ import annotations

import asyncio
import struct

A, MX, ANY = 1, 15, 255
NXDOMAIN = 3


class Zone:
    """Addresses by name, and the mail domains, each served by mx.DOMAIN."""

    def __init__(self, addresses: dict[str, str], mail_domains: dict[str, str]) -> None:
        self.addresses = {name.lower(): address for name, address in addresses.items()}
        self.mail_domains = {name.lower() for name in mail_domains}
        for domain, address in mail_domains.items():
            self.addresses[f"mx.{domain.lower()}"] = address

    def answer(self, query: bytes) -> bytes:
        """The reply to one query packet (RFC 1035, 4.1). Raises ValueError when it is not a query."""
        if len(query) < 17 or query[2] & 0x80:
            raise ValueError("not a query")
        name, end = _read_name(query, 12)
        (kind,) = struct.unpack_from("!H", query, end)
        question = query[12 : end + 4]
        records = self._records(name, kind)
        known = name in self.addresses or name in self.mail_domains
        flags = 0x8480 | (query[2] & 0x01) << 8 | (0 if known else NXDOMAIN)
        head = query[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0)
        return head + question + b"".join(b"\xc0\x0c" + record for record in records)

    def _records(self, name: str, kind: int) -> list[bytes]:
        found = []
        if kind in (MX, ANY) and name in self.mail_domains:
            found.append(_record(MX, struct.pack("!H", 10) + _write_name(f"mx.{name}")))
        if kind in (A, ANY) and name in self.addresses:
            found.append(_record(A, bytes(int(part) for part in self.addresses[name].split("."))))
        return found


def _record(kind: int, data: bytes) -> bytes:
    return struct.pack("!HHIH", kind, 1, 60, len(data)) + data


def _read_name(packet: bytes, at: int) -> tuple[str, int]:
    labels = []
    while packet[at]:
        length = packet[at]
        if length > 63 or at + 1 + length >= len(packet):
            raise ValueError("no plain name")
        labels.append(packet[at + 1 : at + 1 + length].decode("latin-1").lower())
        at += 1 + length
    return ".".join(labels), at + 1


def _write_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


class DnsProtocol(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self.zone = zone

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            self.transport.sendto(self.zone.answer(data), addr)
        except (ValueError, IndexError, struct.error):
            return  # a broken packet gets no answer, as from any server


async def serve_tcp(zone: Zone, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection with any number of questions, each with its length before it (RFC 1035, 4.2.2)."""
    try:
        while head := await reader.read(2):
            answer = zone.answer(await reader.readexactly(int.from_bytes(head)))
            writer.write(len(answer).to_bytes(2) + answer)
            await writer.drain()
    except (ValueError, IndexError, struct.error, asyncio.IncompleteReadError, OSError):
        return
    finally:
        writer.close()
