"""A small HTTP(S) server on a real socket: it serves what a test puts into `pages`, and writes down what was asked."""

import asyncio
import datetime
import ipaddress
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.patience import PATIENCE

TIMEOUT = PATIENCE


@dataclass
class Page:
    """One answer."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    before: Callable[[], Awaitable[object]] | None = None
    """Awaited before the answer: a gate of the test."""

    @classmethod
    def json(cls, value: Any, **more: Any) -> "Page":
        return cls(json.dumps(value).encode(), **more)


@dataclass
class Site:
    """See the module."""

    port: int
    scheme: str = "http"
    pages: dict[str, Page] = field(default_factory=dict[str, Page])
    asked: list[str] = field(default_factory=list[str])
    """Paths, in order."""
    heads: list[str] = field(default_factory=list[str])
    """Whole request heads."""
    tasks: set["asyncio.Task[None]"] = field(default_factory=set["asyncio.Task[None]"])

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}"

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._answer(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._exchange(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        path = head.split(" ")[1]
        self.asked.append(path)
        self.heads.append(head)
        page = self.pages.get(path, Page(status=404))
        if page.before is not None:
            await page.before()
        lines = [f"HTTP/1.1 {page.status} X", *(f"{name}: {value}" for name, value in page.headers.items())]
        if not {"Content-Length", "Transfer-Encoding"} & page.headers.keys():
            lines.append(f"Content-Length: {len(page.body)}")
        writer.write("\r\n".join([*lines, "Connection: close"]).encode() + b"\r\n\r\n" + page.body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def site(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncGenerator[Site, None]:
    found = Site(0, "http" if tls is None else "https")
    server = await asyncio.start_server(found.serve, host, 0, ssl=tls)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for task in tuple(found.tasks):
            task.cancel()
        await asyncio.gather(*found.tasks, return_exceptions=True)


@dataclass
class Authority:
    """A certificate authority of the test's own, and a server certificate of it for localhost."""

    file: Path
    server: ssl.SSLContext

    @property
    def client(self) -> ssl.SSLContext:
        """Trusts it, and nobody else."""
        return ssl.create_default_context(cafile=str(self.file))


def authority(directory: Path, name: str = "test authority", *, is_expired: bool = False) -> Authority:
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _certificate(name, ca_key, name, ca_key, is_ca=True)
    leaf = _certificate("localhost", key, name, ca_key, is_ca=False, days=0 if is_expired else 2)
    pem = serialization.Encoding.PEM
    ca_file, file = directory / f"{name}-ca.pem", directory / f"{name}-server.pem"
    ca_file.write_bytes(ca.public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(secret + leaf.public_bytes(pem))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return Authority(ca_file, context)


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    *,
    is_ca: bool,
    days: int = 2,
) -> x509.Certificate:
    """Good from yesterday on, for so many days after this moment."""
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.NameAttribute(NameOID.COMMON_NAME, subject)], [x509.NameAttribute(NameOID.COMMON_NAME, issuer)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names[0]))
        .issuer_name(x509.Name(names[1]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if is_ca:
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    else:
        alternatives = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(signer, hashes.SHA256())
