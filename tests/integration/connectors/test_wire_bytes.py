"""What leaves and what arrives, byte for byte, on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import socket
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from connectors.core.errors import PlanError
from connectors.fhir.errors import ProtocolError, TerminalFetchError, TransientFetchError, UntrustedServerError
from connectors.fhir.metadata import declared
from connectors.fhir.transport import client as client_module
from tests.integration.connectors.unhurried_loop import BACKEND
from tests.integration.connectors.wire import Endpoint, always, call, client, http, read_to_its_end, wire

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Time that only waits move."""
    return BACKEND


NDJSON = b'{"resourceType":"Patient","id":"p"}\n' * 20_000


@pytest.mark.parametrize(
    "target",
    [
        "/fhir/Patient?name=a%2Cb%2cc,d%3A:e|f%7C&_typeFilter=Observation%3Fcode%3Dx%252Cy&empty=&plus=%2B+",
        "/other/../path//x/./y;z=1?-pageContext=QUJD%3D%3D==&-pageDirection=NEXT",
        "/fhir/Patient?sessionID=" + "x" * 6000,
        "/fhir/$export?_since=2021-03-18T19:19:42.000Z&a='()*!~",
    ],
)
async def test_an_absolute_url_is_sent_byte_for_byte(target):
    async with wire(always(http())) as server, client(server) as ehr:
        await ehr.send(call(server.origin + target))
        assert server.seen[0].target == target


async def test_headers_say_who_we_are_and_what_we_accept():
    async with wire(always(http())) as server, client(server, http__client_id_header="Epic-Client-ID") as ehr:
        await ehr.send(call(headers={"Prefer": "respond-async"}))
        headers = server.seen[0].headers
    assert headers.pop("user-agent").startswith("chartferry/")
    assert headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept": "application/fhir+json",
        "accept-encoding": "gzip",
        "prefer": "respond-async",
        "epic-client-id": "c1",
    }


async def test_a_posted_body_arrives_whole():
    async with wire(always(http())) as server, client(server) as ehr:
        body = b"patient=1&name=%2C"
        await ehr.send(call("Patient/_search", method="POST", body=body, headers={"Content-Type": "text/x"}))
        assert (server.seen[0].method, server.seen[0].body) == ("POST", body)
        assert server.seen[0].headers["content-type"] == "text/x"


async def test_no_cookie_is_kept():
    async with wire(always(http(Set_Cookie="session=1; Path=/"))) as server:
        by_name = Endpoint(f"http://localhost:{server.port}/fhir")  # cookie jars pass over bare addresses
        async with client(by_name) as ehr:
            await ehr.send(call())
            await ehr.send(call())
        assert ["cookie" in request.headers for request in server.seen] == [False, False]


async def test_connections_stay_open_between_calls_even_after_a_refusal():
    async with wire(always([http(), http(404, b"gone", "text/plain"), http()])) as server, client(server) as ehr:
        await ehr.send(call())
        with pytest.raises(TerminalFetchError):
            await ehr.send(call())
        await ehr.send(call())
        assert len({request.peer for request in server.seen}) == 1


@pytest.mark.parametrize("coding", ["gzip", None, "UTF-8", "aws-chunked,gzip"])
async def test_compressed_answers_are_decoded_whether_labelled_or_not(coding):
    packed = http(body=gzip.compress(NDJSON), Content_Encoding=coding)
    async with wire(always(packed)) as server, client(server) as ehr:
        assert (await ehr.send(call())).body == NDJSON
        async with ehr.stream(call(purpose="file", accept="application/fhir+ndjson")) as reply:
            assert b"".join([chunk async for chunk in reply.chunks]) == NDJSON


@pytest.mark.parametrize("coding", ["br", "zstd"])
async def test_an_unrequested_coding_is_reported_and_not_retried(coding):
    body = http(body=b"\x28\xb5\x2f\xfd" + b"x" * 40, Content_Encoding=coding)
    async with wire(always(body)) as server, client(server) as ehr:
        with pytest.raises(TerminalFetchError, match=rf"was not requested \({coding}\).*only gzip"):
            await ehr.send(call())
        with pytest.raises(TerminalFetchError, match=coding):
            await read_to_its_end(ehr)
        assert len(server.seen) == 2
        assert ehr.retries == 0


async def test_an_answer_too_long_to_hold_is_refused(monkeypatch):
    monkeypatch.setattr(client_module, "MAX_REPLY_BYTES", 1 << 20)
    bomb = http(body=gzip.compress(b"\0" * (30 << 20)), Content_Encoding="gzip")
    async with wire(always(bomb)) as server, client(server) as ehr:
        with pytest.raises(ProtocolError, match="longer than 1 MB"):
            await ehr.send(call(accept="application/octet-stream"))


CUTS = {
    "content length": http(body=NDJSON)[:-10],
    "gzip with content length": http(body=gzip.compress(NDJSON), Content_Encoding="gzip")[:-10],
    "gzip without its trailer": http(body=gzip.compress(NDJSON)[:-8], Content_Encoding="gzip"),
    "chunked": b'HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n',
    "unlabelled gzip until the end": http(body=gzip.compress(NDJSON), Content_Length=None)[:-10],
    "nothing at all": b"",
    "half a head": b"HTTP/1.1 200 X\r\nContent-",
}


def then_cut(*answers):
    script = list(answers)

    async def reply(request, writer):
        answer = script.pop(0)
        writer.write(answer)
        return answer not in CUTS.values()

    return reply


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
async def test_a_truncated_answer_is_requested_again(cut):
    async with wire(then_cut(cut, http(body=b'{"a":1}'))) as server, client(server) as ehr:
        assert (await ehr.send(call())).body == b'{"a":1}'
        assert (len(server.seen), ehr.requests, ehr.retries) == (2, 2, 1)


@pytest.mark.parametrize("name", [name for name in CUTS if "gzip" in name or "length" in name])
async def test_a_truncated_stream_raises_and_never_looks_complete(name):
    async with wire(then_cut(CUTS[name])) as server, client(server) as ehr:
        with pytest.raises(TransientFetchError, match=r"^GET /Patient\?name=\{name\}: .*(lost|damaged)"):
            await read_to_its_end(ehr)
        assert ehr.retries == 1


async def test_a_stream_left_early_releases_its_place_and_connection():
    async with (
        wire(always(http(body=NDJSON))) as server,
        client(server, limits__max_concurrency=1, limits__file_concurrency=1) as ehr,
    ):
        for _ in range(3):
            async with ehr.stream(call(purpose="file")) as reply:
                await anext(reply.chunks)
        assert len(server.seen) == 3


async def test_a_stall_is_a_timeout_and_slow_progress_is_not():
    body = b'{"a":1' + b" " * 693 + b"}"

    async def stalls_then_drips(request, writer):
        writer.write(http(body=body)[: -len(body)])
        if len(server.seen) == 1:
            await asyncio.sleep(30)
        for at in range(0, len(body), 100):
            writer.write(body[at : at + 100])
            await writer.drain()
            await asyncio.sleep(0.1)

    async with wire(stalls_then_drips) as server, client(server, http__read_timeout_s=0.4) as ehr:
        began = asyncio.get_running_loop().time()
        assert (await ehr.send(call())).body == body
        assert asyncio.get_running_loop().time() - began == pytest.approx(0.4 + 0.6)
        assert ehr.retries == 1


async def test_a_lost_kick_off_is_never_sent_again():
    async def drops(request, writer):
        return False

    async with wire(drops) as server, client(server) as ehr:
        with pytest.raises(TransientFetchError):
            await ehr.send(call("Group/1/$export", purpose="kickoff", template="GET /Group/{id}/$export"))
        assert len(server.seen) == 1


async def test_an_unreachable_server_is_transient_and_the_message_says_what_to_check():
    async with wire(always(http())) as server:
        pass
    async with client(server, retry__max_tries=2) as ehr:
        with pytest.raises(TransientFetchError) as raised:
            await ehr.send(call())
    assert str(raised.value) == (
        "GET /Patient?name={name}: the connection was refused, or there is no route to the host "
        f"({server.origin}) after 2 tries; "
        "check host and port in base_url, whether the EHR is up, the network and the proxy setting"
    )


@pytest.mark.parametrize(
    ("answer", "cause", "step"),
    [
        (http(407), "the proxy wants a login", "http://user:password@host:port"),
        (http(403), "the proxy refused to open the way", "ask the proxy's operator to allow"),
        (http(503), "the proxy did not reach that host", "whether the EHR is up"),
    ],
)
async def test_what_a_proxy_answers_is_reported_with_the_next_step(answer, cause, step):
    async with wire(always(answer)) as proxy:
        endpoint = Endpoint("https://ehr.example/fhir", proxy=f"http://user:hunter2@127.0.0.1:{proxy.port}")
        async with client(endpoint, retry__max_tries=1) as ehr:
            with pytest.raises(TransientFetchError) as raised:
                await ehr.send(call())
    assert cause in str(raised.value)
    assert step in str(raised.value)
    assert "hunter2" not in str(raised.value)


async def test_a_proxy_that_is_down_is_not_mistaken_for_the_ehr():
    async with wire(always(http())) as gone:
        pass
    async with client(Endpoint("https://ehr.example/fhir", proxy=gone.origin), retry__max_tries=1) as ehr:
        with pytest.raises(TransientFetchError, match=r"the proxy was not reached.*whether the proxy is up"):
            await ehr.send(call())


async def test_a_mistyped_base_url_is_reported_after_three_attempts():
    async with wire(always(http())) as server:
        pass
    async with client(server, retry__max_tries=9) as ehr:
        with pytest.raises(TransientFetchError, match="after 3 tries"):
            await ehr.send(call("metadata", purpose="discovery"))


async def test_https_to_an_http_port_is_reported_as_a_failed_handshake():
    def plain(reader, writer):
        writer.write(http(400))
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with client(Endpoint(f"https://127.0.0.1:{port}/fhir"), retry__max_tries=1) as ehr:
            with pytest.raises(TransientFetchError, match=r"TLS handshake failed .*speaks https"):
                await ehr.send(call())


async def test_a_host_without_an_address_is_distinguished_from_a_server_that_is_down(monkeypatch):
    async def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    async with client(Endpoint("http://nowhere.invalid/fhir"), retry__max_tries=1) as ehr:
        with pytest.raises(TransientFetchError, match=r"host name was not found \(http://nowhere.invalid\)"):
            await ehr.send(call())


async def test_no_log_or_error_contains_a_query_a_token_or_a_body(caplog):
    caplog.set_level(logging.DEBUG)
    answers = [*CUTS.values(), http(500, b'{"name":"SECRET"}'), http(400, b"SECRET"), b"SECRET \r\n\r\n"]
    for answer in answers:
        async with wire(then_cut(answer)) as server, client(server, retry__max_tries=1) as ehr:
            with pytest.raises(Exception, match="GET /Patient") as raised:
                await ehr.send(call())
        error = raised.value
        while error is not None:
            assert "SECRET" not in f"{error!r} {error}"
            error = error.__cause__ or error.__context__
    assert "SECRET" not in caplog.text


def certificate(folder, *, days=1, address="127.0.0.1", common_name="test", issuer=None):
    key = ec.generate_private_key(ec.SECP256R1())
    signer = key if issuer is None else serialization.load_pem_private_key(issuer[1].read_bytes(), None)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    by = name if issuer is None else x509.load_pem_x509_certificate(issuer[0].read_bytes()).subject
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(by, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=3))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    pem, key_pem = folder / "cert.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, key_pem


@pytest.fixture
def server_tls(tmp_path):
    pem, key = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, key)
    return context, pem, key


async def test_a_certificate_of_an_unknown_issuer_is_refused_without_a_retry(server_tls):
    context, _, _ = server_tls
    async with wire(always(http()), tls=context) as server, client(server) as ehr:
        with pytest.raises(TerminalFetchError, match=r"certificate is not trusted; if .* set ca_bundle"):
            await ehr.send(call())
        assert ehr.retries == 0


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"days": -1}, "has expired, or is not valid yet; check this machine's clock"),
        ({"address": "127.0.0.2"}, "is for another host; check the host in base_url"),
    ],
    ids=["expired", "another host"],
)
async def test_an_expired_or_misissued_trusted_certificate_does_not_suggest_ca_bundle(tmp_path, made, message):
    pem, key = certificate(tmp_path, **made)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, key)
    async with wire(always(http()), tls=context) as server, client(Endpoint(server.base_url, ca_bundle=pem)) as ehr:
        with pytest.raises(UntrustedServerError, match=message) as caught:
            await ehr.send(call())
    assert "ca_bundle" not in str(caught.value)


async def test_an_untrusted_server_is_not_planned_for_from_the_profile_alone(server_tls):
    context, _, _ = server_tls
    async with wire(always(http()), tls=context) as server, client(server) as ehr:
        with pytest.raises(UntrustedServerError, match="GET /metadata: the server's certificate is not trusted"):
            await declared(ehr)


async def test_the_connections_own_ca_bundle_and_client_certificate_are_used(server_tls):
    context, pem, key = server_tls
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(pem)
    async with wire(always(http()), tls=context) as server:
        endpoint = Endpoint(server.base_url, ca_bundle=pem, client_cert=pem, client_cert_key=key)
        async with client(endpoint) as ehr:
            assert (await ehr.send(call())).status == 200


async def test_old_tls_is_refused(server_tls):
    context, pem, _ = server_tls
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA")
    async with wire(always(http()), tls=context) as server:
        async with client(Endpoint(server.base_url, ca_bundle=pem), retry__max_tries=1) as ehr:
            with pytest.raises(TransientFetchError, match="TLS handshake failed"):
                await ehr.send(call())
        assert server.seen == []


async def test_an_intermediate_authority_is_trusted_if_it_is_the_ca_bundle(tmp_path):
    made = None
    for name in ("root", "intermediate", "server"):
        (tmp_path / name).mkdir()
        made = certificate(tmp_path / name, common_name=name, issuer=made)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*made)
    async with wire(always(http()), tls=context) as server:
        endpoint = Endpoint(server.base_url, ca_bundle=tmp_path / "intermediate" / "cert.pem")
        async with client(endpoint) as ehr:
            assert (await ehr.send(call())).status == 200


def encrypted(key, folder):
    opened = serialization.load_pem_private_key(key.read_bytes(), None)
    sealed = folder / "sealed.pem"
    sealed.write_bytes(
        opened.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"SECRET"),
        )
    )
    return sealed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            lambda pem, key, folder: {"client_cert_key": encrypted(key, folder)},
            "encrypted with a passphrase .*openssl pkey",
        ),
        (lambda pem, key, folder: {"client_cert_key": certificate(folder)[1]}, "does not belong to the certificate"),
        (lambda pem, key, folder: {}, r"client_cert = \S+ cannot be read .* unless the key is in the same file"),
        (
            lambda pem, key, folder: {"client_cert": None, "ca_bundle": key},
            r"ca_bundle = \S+ cannot be read .*openssl x509",
        ),
    ],
    ids=["encrypted key", "another key", "no key", "a key for a ca_bundle"],
)
async def test_a_file_that_tls_cannot_use_is_reported_by_its_setting_and_no_passphrase_is_asked_for(
    tmp_path, settings, message
):
    (tmp_path / "other").mkdir()
    pem, key = certificate(tmp_path)
    endpoint = Endpoint("https://127.0.0.1:9/fhir", **{"client_cert": pem, **settings(pem, key, tmp_path / "other")})
    async with client(endpoint) as ehr:
        with pytest.raises(PlanError, match=message):
            await ehr.send(call())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
async def test_a_server_that_does_not_accept_our_certificate_is_reported_as_such(server_tls, tmp_path, version):
    """With TLS 1.3 its alert comes after the handshake (RFC 8446 4.4.2.4), when the request is under way."""
    context, pem, _ = server_tls
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    context.load_verify_locations(pem)
    (tmp_path / "other").mkdir()
    other, other_key = certificate(tmp_path / "other", common_name="other")
    endpoint = {"ca_bundle": pem, "client_cert": other, "client_cert_key": other_key}
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:  # not asyncio's server, which sends no alert
            taken, _ = listening.accept()
            with context.wrap_socket(taken, server_side=True, do_handshake_on_connect=False) as refusing:
                with contextlib.suppress(ssl.SSLError):
                    refusing.do_handshake()
                while socket.socket.recv(refusing, 1 << 16):  # a close with bytes unread would take the alert with it
                    pass

        server = asyncio.create_task(asyncio.to_thread(refuse))
        base_url = f"https://127.0.0.1:{listening.getsockname()[1]}/fhir"
        async with client(Endpoint(base_url, **endpoint), retry__max_tries=1) as ehr:
            with pytest.raises(TransientFetchError, match=r"does not accept ours .* set client_cert"):
                await ehr.send(call())
        await server


async def test_a_missing_ca_bundle_is_reported(tmp_path):
    async with client(Endpoint("https://127.0.0.1:9/fhir", ca_bundle=tmp_path / "none.pem")) as ehr:
        with pytest.raises(PlanError, match=r"ca_bundle = .*none\.pem"):
            await ehr.send(call())


async def test_requests_go_through_the_configured_proxy_and_no_other(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with wire(always(http())) as proxy, wire(always(http())) as server:
        async with client(server) as ehr:
            await ehr.send(call())
        endpoint = Endpoint(server.base_url, proxy=f"http://user:pass@127.0.0.1:{proxy.port}")
        async with client(endpoint) as ehr:
            await ehr.send(call("Patient?x=%2C|"))
        assert len(server.seen) == 1
        assert proxy.seen[0].target == f"{server.base_url}/Patient?x=%2C|"
        assert proxy.seen[0].headers["proxy-authorization"] == "Basic dXNlcjpwYXNz"
        assert "authorization" not in proxy.seen[0].headers


@pytest.mark.parametrize(
    ("begin", "again"),
    [(b"HTTP/1.1 200 OK\r\nX-A: ", b"a"), (b"", b"HTTP/1.1 100 Continue\r\n\r\n")],
    ids=["bytes", "1xx"],
)
async def test_endlessly_trickling_headers_are_a_timeout(begin, again):
    async def drips(request, writer):
        writer.write(begin)
        for _ in range(100):
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(0.05)
        return False

    async with wire(drips) as server, client(server, http__read_timeout_s=0.3, retry__max_tries=2) as ehr:
        with anyio.fail_after(4), pytest.raises(TransientFetchError, match="within the time allowed"):
            await ehr.send(call())
        assert len(server.seen) == 2


async def test_slow_headers_within_the_timeout_do_not_shorten_the_time_for_the_body():
    async def late(request, writer):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asyncio.sleep(0.2)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
        for _ in range(3):
            await asyncio.sleep(0.2)
            writer.write(b"1" * 300)
            await writer.drain()

    async with wire(late) as server, client(server, http__read_timeout_s=0.4, retry__max_tries=1) as ehr:
        assert (await ehr.send(call())).body == b"1" * 900
