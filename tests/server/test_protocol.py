"""Timers and limits of connections, with short limits."""

import contextlib
import socket
import time

import pytest
from support.guarded_app import Client, serve

from mlx_smolvlm.server.http.protocol import Places
from mlx_smolvlm.server.settings import ServerSettings

GET = "GET /health HTTP/1.1\r\nHost: localhost:{port}\r\n"
POST = "POST /echo HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
SHORT = {
    "header_timeout_s": 0.4,
    "body_timeout_s": 0.4,
    "idle_timeout_s": 0.3,
    "stalled_client_s": 0.4,
    "max_connections": 12,
    "max_header_bytes": 8192,
}


@pytest.fixture(scope="module")
def served():
    with serve(**SHORT) as it:
        yield it


@pytest.fixture(scope="module")
def patient():
    """A server whose limits of time a busy machine does not reach."""
    with serve(max_connections=12, max_header_bytes=8192) as it:
        yield it


@pytest.fixture
def client(served):
    with Client(served[0]) as client:
        yield client


@pytest.fixture
def patient_client(patient):
    with Client(patient[0]) as client:
        yield client


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_served(port):
    """Whether a connection has a place."""
    with Client(port) as client, contextlib.suppress(ConnectionError):
        return client.request("GET /health").status == 200
    return False


def trickle(client, data, pause_s=0.05):
    """Send byte by byte; returns the seconds until the server has had enough."""
    started = time.monotonic()
    client.socket.settimeout(pause_s)
    for byte in data:
        with contextlib.suppress(TimeoutError, ConnectionError):
            client.send(bytes([byte]))
        try:
            if not client.socket.recv(65536):
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return time.monotonic() - started


def test_silent_connections_are_closed(client):
    assert 0.3 < client.seconds_until_closed() < 5


def test_a_header_must_come_in_time_however_it_trickles(client):
    assert 0.3 < trickle(client, GET.encode() * 10) < 5


def test_the_next_header_must_come_in_time_too(client):
    assert client.request("GET /health").status == 200
    time.sleep(0.1)
    assert 0.3 < trickle(client, GET.encode() * 10) < 5


def test_idle_connections_are_closed(client):
    assert client.request("GET /health").status == 200
    assert 0.2 < client.seconds_until_closed() < 5


def test_a_body_must_come_in_time(client):
    client.send((POST + "Content-Length: 100\r\n\r\n").format(port=client.port).encode() + b"{")
    started = time.monotonic()
    answer = client.answer()
    assert 0.3 < time.monotonic() - started < 5
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert answer.headers["x-should-retry"] == "false"
    assert client.seconds_until_closed() < 5


def test_a_chunked_body_of_one_byte_a_time_ends_too(client):
    client.send((POST + "Transfer-Encoding: chunked\r\n\r\n").format(port=client.port).encode())
    assert 0.3 < trickle(client, b"1\r\n{\r\n" * 100) < 5  # and the time to read the response


def test_more_bytes_are_given_more_time():
    """So many seconds for each MiB, as 100 MiB cannot come as fast as a kilobyte."""
    with serve(body_timeout_s=0.4, body_timeout_s_per_mib=20) as (port, _), Client(port) as client:
        client.send((POST + f"Content-Length: {(1 << 20) + 10}\r\n\r\n").format(port=client.port).encode())
        client.send(b'{"a":"' + b"x" * (1 << 20))
        time.sleep(0.7)
        client.send(b'12"}')
        assert client.answer().status == 200


def test_a_header_that_is_too_large_is_refused(patient):
    for size in (9000, 200_000):  # in one piece, and in several
        with Client(patient[0]) as client:
            client.send((GET + f"X-Large: {'x' * size}\r\n\r\n").format(port=client.port).encode())
            with contextlib.suppress(ConnectionError):  # what is still being sent meets a closed connection
                answer = client.answer()
                assert (answer.status, answer.error["code"]) == (431, "header_too_large")
    with Client(patient[0]) as client:
        client.send((GET + f"X-Large: {'x' * 7000}\r\n\r\n").format(port=client.port).encode())
        assert client.answer().status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_in_the_form_of_errors(patient_client, data):
    patient_client.send(data)
    answer = patient_client.answer()
    assert answer.status == 400 and answer.error["code"] == "invalid_request"
    assert patient_client.seconds_until_closed() < 5


def test_a_broken_body_during_the_response_ends_the_connection(patient_client, caplog):
    client = patient_client
    client.send(
        f"POST /nothing HTTP/1.1\r\nHost: localhost:{client.port}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    assert client.answer().status == 404
    client.send(b"not a chunk\r\n")
    assert client.socket.recv(65536) == b""  # closed, without a second response
    assert not [record for record in caplog.records if record.exc_info]


def test_a_reader_that_stalls_is_dropped(served):
    calls = served[1]
    calls.clear()
    with Client(served[0]) as client:
        client.send(f"GET /pour HTTP/1.1\r\nHost: localhost:{client.port}\r\n\r\n".encode())
        time.sleep(0.1)
        assert calls == []
        wait_for(lambda: calls == ["ended"])


@pytest.mark.slow
def test_a_slow_reader_is_kept():
    with serve(stalled_client_s=0.8) as (port, calls):
        with Client(port) as client:
            client.send(f"GET /pour HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
            for _ in range(40):
                time.sleep(0.05)
                assert client.socket.recv(1 << 20)
            assert calls == []
        wait_for(lambda: calls == ["ended"])


def test_a_client_that_leaves_is_noticed_behind_a_second_request(served):
    """uvicorn reads nothing while a pipelined request waits, so it would not see the end of the connection."""
    calls = served[1]
    calls.clear()
    with Client(served[0]) as client:
        client.send(f"GET /wait HTTP/1.1\r\nHost: localhost:{client.port}\r\n\r\n".encode())
        time.sleep(0.1)
        for _ in range(3):
            client.send(GET.format(port=client.port).encode())
            time.sleep(0.05)
    wait_for(lambda: calls == ["left"])


def test_requests_that_come_before_the_response_are_answered_in_turn(patient_client):
    patient_client.send((GET + "\r\n").format(port=patient_client.port).encode() * 3)
    assert [patient_client.answer().status for _ in range(3)] == [200] * 3


def test_no_more_than_so_many_requests_are_kept_before_the_response(served):
    calls = served[1]
    calls.clear()
    with Client(served[0]) as client:
        client.send(f"GET /wait HTTP/1.1\r\nHost: localhost:{client.port}\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                client.send((GET + "\r\n").format(port=client.port).encode() * 10)
                time.sleep(0.001)
        wait_for(lambda: calls == ["left"])


def test_connections_above_the_limit_are_told_so_and_others_are_served(patient):
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(Client(patient[0])) for _ in range(12)]
        for _ in range(2):
            with Client(patient[0]) as late:
                late.send(GET.format(port=late.port).encode())
                answer = late.answer()
                assert (answer.status, answer.error["code"]) == (503, "server_busy")
                assert answer.headers["retry-after"] == "2"
        assert held[5].request("GET /health").status == 200
    wait_for(lambda: is_served(patient[0]))


def test_silent_connections_beyond_all_limits_do_no_harm():
    with serve(max_connections=20, header_timeout_s=0.3) as (port, _), contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        wait_for(lambda: is_served(port))


def test_places_are_counted_by_address_but_for_this_machine():
    places = Places(ServerSettings(max_connections=5, max_connections_per_address=2))
    assert [places.take("192.0.2.1") is None for _ in range(3)] == [True, True, False]
    assert [places.take("127.0.0.1") is None for _ in range(4)] == [True, True, True, False]
    assert "all 5 connections" in places.take("192.0.2.2").message
    places.give("192.0.2.1")
    assert places.take("192.0.2.1") is None
