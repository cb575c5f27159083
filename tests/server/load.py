#!/usr/bin/env python3
"""Many clients, good and bad, against a real server: nobody disturbs anybody, and nothing leaks.

Usage: load.py NIBBLE MODEL [--streams N] [--rounds N] [--sequence N]

Round after round, streams of greedy answers run beside clients that vanish, that send a byte at a
time, and that send what is no request. Every answer must be what the request alone was answered,
every bad request must get its error, and after each round descriptors and blocks of the cache must
be back where they were, and memory after the first. `--sequence` requests, one after the other on
one connection, come last. The full form is --streams 1000 --rounds 5 --sequence 100000.
"""
import argparse
import asyncio
import json
import pathlib
import random
import signal
import subprocess
import sys
import time

PROMPTS = ["It was a dark", "She", "Once upon a time there was", "The king said to the queen that",
           "Chapter 7.", "\"Where are you going?\" asked the", "When the carriage came,", "No"]


class Server:
    def __init__(self, arguments):
        # A machine that is busy with many good clients must not take them for ones that dawdle.
        self.timeout = max(3, arguments.streams // 40)
        command = [arguments.nibble, "serve", arguments.model, "--port", "0", "--json", "--quiet",
                   "--served-model-name", "tiny", "--max-model-len", "256", "--max-num-seqs", "48",
                   "--kv-cache-memory-bytes", str(2 << 20), "--block-size", "16",
                   "--swap-space", str(arguments.swap), "--timeout", str(self.timeout),
                   "--num-speculative-tokens", str(arguments.speculative), "--deterministic"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        text = ""
        while not text.rstrip().endswith("}"):
            line = self.process.stdout.readline()
            assert line, "the server did not start"
            text += line
        self.port = int(json.loads(text)["address"].rsplit(":", 1)[1])

    def descriptors(self):
        return len(list(pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def resident(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=120) == 0, "SIGTERM must end it with status 0"


def head(path, length, extra=""):
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {length}\r\n{extra}\r\n").encode()


async def reply(reader):
    """Status and body of one answer, whatever its form."""
    status = int((await reader.readline()).split()[1])
    length, chunked = 0, False
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode().partition(":")
        length = int(value) if name.lower() == "content-length" else length
        chunked = chunked or (name.lower() == "transfer-encoding" and "chunked" in value)
    if not chunked:
        return status, await reader.readexactly(length)
    body = b""
    while (size := int(await reader.readline(), 16)) > 0:
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return status, body


async def post(port, path, body):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head(path, len(body)) + body)
        return await reply(reader)
    finally:
        writer.close()


def greedy(prompt, tokens):
    return {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}


async def stream(port, prompt, tokens):
    status, body = await post(port, "/v1/completions", greedy(prompt, tokens))
    assert status == 200, (status, body[:300])
    events = body.decode().split("\n\n")
    assert events[-2] == "data: [DONE]", events[-3:]
    return "".join(json.loads(e[6:])["choices"][0]["text"] for e in events[:-2])


async def vanish(port, draw):
    """Goes away in the middle of a request or of its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({**greedy("Once", 200), "ignore_eos": True}).encode()
    request = head("/v1/completions", len(body)) + body
    if draw.random() < 0.3:
        writer.write(request[:draw.randrange(1, len(request))])
    else:
        writer.write(request)
        await reader.read(draw.randrange(1, 400))
    writer.transport.abort()


async def drip(server):
    """A byte a second: must be cut off by the time limit, with 408 or without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    start = time.monotonic()
    latest = server.timeout + 12
    try:
        for byte in head("/v1/completions", 1000):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(1)
            if reader.at_eof() or time.monotonic() - start > latest:
                break
    except ConnectionError:
        pass
    writer.close()
    assert time.monotonic() - start < latest, "a client that dawdles keeps its connection"


def nested_schema():
    definitions = {"l0": {"type": "string"}}
    for i in range(1, 40):
        below = {"$ref": f"#/$defs/l{i - 1}", "maxProperties": 3}
        definitions[f"l{i}"] = {"properties": {"a": below, "b": below}}
    return {"$defs": definitions, "$ref": "#/$defs/l39"}


def bad_requests():
    path = "/v1/completions"
    ask = {"prompt": "x", "max_tokens": 2}
    return [
        (path, b"{\"prompt\": ", 400), (path, b"\xff\xfe{}", 400), (path, b"[" * 100_000, 400),
        (path, b'{"prompt": "\xc3\x28"}', 400), (path, {**ask, "prompt": "word " * 5000}, 400),
        (path, {**ask, "stop": [f"s{i}" for i in range(5000)]}, 400),
        (path, {**ask, "stop": ["x" * 100_000]}, 400), (path, {**ask, "n": 1 << 40}, 400),
        (path, {**ask, "guided_json": nested_schema()}, 400),
        (path, {**ask, "guided_regex": "(((a{60000}){60000}b){60000})" * 3 + "(" * 9000}, 400),
        (path, {**ask, "guided_grammar": "root ::= root root | \"x\""}, 400),
        ("/v1/chat/completions", {"messages": [{"role": "user"}] * 20_000}, 400),
        ("/nothing", b"{}", 404),
    ]


async def huge(port):
    """50 MB: refused by its length, before it is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head("/v1/completions", 50_000_000))
    status, _ = await reply(reader)
    writer.close()
    assert status == 413, status


async def expect(port, path, body, wanted):
    status, answer = await post(port, path, body)
    assert status == wanted and b'"error"' in answer, (status, answer[:300], str(body)[:100])


async def metric(port, name):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    _, body = await reply(reader)
    writer.close()
    return next(float(line.split()[-1]) for line in body.decode().splitlines()
                if line.startswith(f"nibble:{name}{{"))


async def settle(server, descriptors):
    """Waits until nothing runs; then no block may be held and no descriptor more be open."""
    for _ in range(300):
        running = await metric(server.port, "num_requests_running")
        waiting = await metric(server.port, "num_requests_waiting")
        # Asking for more metrics opens connections, whose other ends may still be there afterwards.
        still_open = server.descriptors()
        if running == 0 and waiting == 0 and still_open <= descriptors + 1:
            break
        await asyncio.sleep(0.1)
    assert await metric(server.port, "kv_cache_usage_perc") == 0, "blocks are held by nobody"
    assert await metric(server.port, "cpu_cache_usage_perc") == 0, "swapped blocks are held by nobody"
    assert still_open <= descriptors + 1, (still_open, descriptors)


async def one_round(server, arguments, expected, draw):
    jobs = []
    for _ in range(arguments.streams):
        prompt, tokens = draw.choice(sorted(expected))
        jobs.append(("stream", (prompt, tokens), stream(server.port, prompt, tokens)))
    for _ in range(arguments.streams // 10):
        jobs.append(("vanish", None, vanish(server.port, draw)))
    for path, body, status in bad_requests():
        jobs.append(("bad", None, expect(server.port, path, body, status)))
    jobs += [("drip", None, drip(server)), ("huge", None, huge(server.port))]
    draw.shuffle(jobs)
    answers = await asyncio.gather(*[job for _, _, job in jobs])
    for (kind, key, _), answer in zip(jobs, answers):
        if kind == "stream":
            assert answer == expected[key], (key, answer, expected[key])


async def sequence(server, count):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    body = json.dumps({"prompt": "x", "max_tokens": 1, "temperature": 0}).encode()
    first = None
    for number in range(count):
        writer.write(head("/v1/completions", len(body)) + body)
        status, _ = await reply(reader)
        assert status == 200, status
        if number == min(1000, count // 2):
            first = server.resident()
    writer.close()
    return server.resident() - first if first else 0


async def run(server, arguments):
    draw = random.Random(7)
    expected = {}
    for prompt in PROMPTS:
        for tokens in (5, 24):
            expected[prompt, tokens] = await stream(server.port, prompt, tokens)
    await asyncio.sleep(0.2)
    descriptors = server.descriptors()
    resident = 0
    for number in range(arguments.rounds):
        await one_round(server, arguments, expected, draw)
        await settle(server, descriptors)
        if number == 0:
            resident = server.resident()
    if arguments.streams >= 100 and arguments.swap > 0:
        assert await metric(server.port, "swapped_tokens_total") > 0, "memory is never short"
    grown = server.resident() - resident
    grown_in_sequence = await sequence(server, arguments.sequence)
    if not arguments.no_memory:
        assert grown < 64 << 20, f"{grown} bytes more after {arguments.rounds} rounds"
        assert grown_in_sequence < 32 << 20, f"{grown_in_sequence} bytes more after a sequence"
    return grown


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nibble")
    parser.add_argument("model")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sequence", type=int, default=200)
    parser.add_argument("--speculative", type=int, default=0)
    parser.add_argument("--swap", type=float, default=0.004, help="GiB for what is put back")
    parser.add_argument("--no-memory", action="store_true",
                        help="do not look at memory (a sanitizer keeps what is freed)")
    arguments = parser.parse_args()
    server = Server(arguments)
    try:
        grown = asyncio.run(run(server, arguments))
        print(f"{arguments.rounds} rounds of {arguments.streams} streams: all well, "
              f"{grown / 2**20:.1f} MiB more after the last than after the first")
        server.stop()
    finally:
        server.process.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
