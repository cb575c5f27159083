#!/usr/bin/env python3
"""Real clients against a real server: curl, the official `openai` package, and lm-evaluation-harness.

Usage: clients.py NIBBLE MODEL ENCODER
(the program, a checkpoint directory with a tokenizer, and one of an encoder with expected.npy)
Exits with 77, saying why, where `openai` is missing; says so of the others. `./dev clients` installs
them. Made with openai 2.x and 3.x, jsonschema 4, lm_eval 0.4.
"""
import asyncio
import importlib.util
import json
import math
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request

KEY = "sk-test"


class Server:
    """`nibble serve` on a free port, for the length of a `with` block."""

    def __init__(self, program, model, *more):
        self.command = [program, "serve", model, "--port", "0", "--served-model-name", "tiny",
                        "--json", *more]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, "NIBBLE_API_KEY": KEY})
        text = ""
        while not text.rstrip().endswith("}"):
            line = self.process.stdout.readline()
            assert line, "the server ended"
            text += line
        self.address = json.loads(text)["address"]
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=60) == 0, "SIGTERM must end it with status 0"


def check_curl(server):
    def curl(*arguments):
        return subprocess.run(["curl", "-sS", *arguments], check=True, capture_output=True,
                              text=True).stdout

    auth = ["-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json"]
    assert curl("-o", "/dev/null", "-w", "%{http_code}", server.address + "/health") == "200"
    url = server.address + "/v1/completions"
    assert json.loads(curl(url, "-d", "{}"))["error"]["type"] == "authentication_error"
    body = {"prompt": "It was a", "max_tokens": 8, "temperature": 0}
    whole = json.loads(curl(url, *auth, "-d", json.dumps(body)))["choices"][0]["text"]
    lines = curl("-N", url, *auth, "-d", json.dumps({**body, "stream": True})).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""], lines[-2:]
    pieces = [json.loads(line[len("data: "):]) for line in lines[:-2]]
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == whole
    # A body that makes curl ask first (Expect: 100-continue), and one over the limit.
    long = json.dumps({"prompt": "x " * 1_000_000})
    subprocess.run(["curl", "-sS", url, *auth, "-d", "@-"], input=long, text=True, check=True,
                   capture_output=True)
    huge = subprocess.run(["curl", "-sS", "-w", "%{http_code}", "-o", "/dev/null", url, *auth,
                           "--data-binary", "@-"], input="x" * 50_000_000, text=True,
                          capture_output=True)
    assert huge.stdout == "413", huge


def check_completions(client):
    models = client.models.list().data
    assert [model.id for model in models] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    ask = {"model": "tiny", "prompt": "It was a dark", "max_tokens": 12, "temperature": 0}
    whole = client.completions.create(**ask, logprobs=3)
    choice = whole.choices[0]
    assert choice.finish_reason == "length" and whole.usage.completion_tokens == 12
    assert len(choice.logprobs.tokens) == 12 and "".join(choice.logprobs.tokens) == choice.text
    assert all(len(top) >= 3 for top in choice.logprobs.top_logprobs)
    pieces = [event.choices[0].text for event in client.completions.create(**ask, stream=True)]
    assert len(pieces) > 3 and "".join(pieces) == choice.text
    echoed = client.completions.create(**{**ask, "max_tokens": 1}, echo=True, logprobs=1)
    assert echoed.choices[0].text.startswith(ask["prompt"])
    assert echoed.choices[0].logprobs.token_logprobs[0] is None
    assert all(p <= 0 for p in echoed.choices[0].logprobs.token_logprobs[1:])
    many = client.completions.create(**{**ask, "prompt": ["One", "Two", "Three"]})
    assert [choice.index for choice in many.choices] == [0, 1, 2]
    again = client.completions.create(model="tiny", prompt="Two", max_tokens=12, temperature=0)
    assert many.choices[1].text == again.choices[0].text, "a batch must not change an answer"
    drawn = {"model": "tiny", "prompt": "She", "max_tokens": 16, "temperature": 1.0, "n": 3}
    first, second = (client.completions.create(**drawn, seed=5) for _ in range(2))
    assert [c.text for c in first.choices] == [c.text for c in second.choices]
    assert len({c.text for c in first.choices}) > 1
    stopped = client.completions.create(**{**ask, "max_tokens": 64}, stop=[" "])
    assert " " not in stopped.choices[0].text.strip() and stopped.choices[0].finish_reason == "stop"


def check_chats(client):
    ask = {"model": "tiny", "max_tokens": 10, "temperature": 0,
           "messages": [{"role": "user", "content": "Who are you?"}]}
    whole = client.chat.completions.create(**ask, logprobs=True, top_logprobs=2)
    assert whole.choices[0].message.role == "assistant"
    assert len(whole.choices[0].logprobs.content) == whole.usage.completion_tokens
    events = list(client.chat.completions.create(**ask, stream=True,
                                                 stream_options={"include_usage": True}))
    text = "".join(e.choices[0].delta.content or "" for e in events if e.choices)
    assert text == whole.choices[0].message.content
    assert events[-1].usage.completion_tokens == whole.usage.completion_tokens
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}}}}]
    called = client.chat.completions.create(**ask, tools=tools, tool_choice="auto")
    assert called.choices[0].finish_reason in ("length", "stop", "tool_calls")
    extra = client.chat.completions.create(**ask, extra_body={"top_k": 1, "min_tokens": 10})
    assert extra.usage.completion_tokens == 10


def check_errors(openai, client, address):
    def expect(kind, **request):
        try:
            client.completions.create(**{"model": "tiny", "prompt": "x", **request})
        except kind as error:
            return error
        raise AssertionError(f"{request} was accepted")

    assert expect(openai.NotFoundError, model="gpt-9").code == "model_not_found"
    assert expect(openai.BadRequestError, temperature=-1).param == "temperature"
    assert expect(openai.BadRequestError, prompt="word " * 5000).code == "context_length_exceeded"
    try:
        openai.OpenAI(base_url=address + "/v1", api_key="wrong").models.list()
        raise AssertionError("a wrong key was accepted")
    except openai.AuthenticationError as error:
        assert error.request_id
    try:
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "x"}],
            response_format={"type": "json_schema", "json_schema": {
                "name": "n", "schema": {"type": "array", "uniqueItems": True}}})
        raise AssertionError("a schema that is not followed was accepted")
    except openai.BadRequestError as error:
        assert error.param == "response_format" and "uniqueItems" in error.message


def random_schema(draw, depth=0):
    """A schema of any of the keywords that the server follows."""
    kinds = ["integer", "number", "string", "enum", "format", "boolean", "null"]
    if depth < 3:
        kinds += ["object", "object", "array", "anyOf", "map"]
    kind = draw.choice(kinds)
    if kind == "object":
        names = draw.sample(["a", "b \"q\"", "list", "näme", "x-y"], draw.randint(1, 4))
        return {"type": "object", "properties": {n: random_schema(draw, depth + 1) for n in names},
                "required": draw.sample(names, draw.randint(0, len(names))),
                "additionalProperties": draw.random() < 0.3 and random_schema(draw, 3)}
    if kind == "map":
        return {"type": "object", "additionalProperties": random_schema(draw, 3),
                "maxProperties": draw.randint(1, 3)}
    if kind == "array":
        least = draw.randint(0, 2)
        return {"type": "array", "items": random_schema(draw, depth + 1), "minItems": least,
                "maxItems": least + draw.randint(0, 2)}
    if kind == "anyOf":
        return {"anyOf": [random_schema(draw, depth + 1) for _ in range(draw.randint(1, 3))]}
    if kind in ("integer", "number"):
        least = draw.choice([-1000, -7, -0.5, 0, 0.25, 3, 12.75])
        limits = {draw.choice(["minimum", "exclusiveMinimum"]): least,
                  draw.choice(["maximum", "exclusiveMaximum"]): least + draw.choice([3, 117.5])}
        return {"type": kind, **{k: limits[k] for k in draw.sample(sorted(limits), 2)}}
    if kind == "string":
        if draw.random() < 0.4:
            return {"type": "string", "pattern": draw.choice(
                ["^[A-Z]{2,5}-\\d+x$", "^(a|\"b\"|\\\\)+$", "^\\w{1,4}$|^[^a-z]{3}$"]), }
        return {"type": "string", "minLength": draw.randint(0, 2), "maxLength": draw.randint(2, 9)}
    if kind == "enum":
        return {"enum": draw.sample(["a\nb", 1, 2.5, None, True, "ü", [1, "x"], {"k": []}], 3)}
    if kind == "format":
        return {"type": "string",
                "format": draw.choice(["date", "date-time", "uuid", "ipv4", "email", "time"])}
    return {"type": kind}


def check_structure(client):
    """Every document that is not cut off is valid, whatever the model would rather say."""
    ask = {"model": "tiny", "max_tokens": 400, "temperature": 1.5,
           "messages": [{"role": "user", "content": "Tell me."}]}

    def answer(**how):
        choice = client.chat.completions.create(**ask, **how).choices[0]
        return choice.message.content if choice.finish_reason == "stop" else None

    try:
        import jsonschema
    except ImportError:
        jsonschema = None
        print("jsonschema is not installed: documents are parsed, not validated")
    draw = random.Random(11)
    whole = 0
    for number in range(40):
        schema = random_schema(draw)
        text = answer(seed=number, response_format={
            "type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}})
        if text is None:
            continue
        whole += 1
        document = json.loads(text)
        if jsonschema:
            jsonschema.Draft202012Validator(schema).validate(document)
    assert whole >= 30, f"only {whole} of 40 documents came to an end"
    text = answer(seed=1, response_format={"type": "json_object"})
    assert text is None or isinstance(json.loads(text), dict)
    pattern = "[A-Z][a-z]{2,6} (lives|died), \\d{1,3} years?"
    assert re.fullmatch(pattern, answer(extra_body={"guided_regex": pattern}))
    grammar = 'root ::= "It is " ("not "){0,2} word "."\nword ::= [a-z]{1,9}'
    assert re.fullmatch("It is (not ){0,2}[a-z]{1,9}[.]", answer(extra_body={"grammar": grammar}))
    chosen = answer(extra_body={"structured_outputs": {"choice": ["red", "\"green\"", "blue"]}})
    assert chosen in ("red", '"green"', "blue"), chosen
    tools = [{"type": "function", "function": {"name": name, "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "maxLength": 8}, "n": {
            "$ref": "#/$defs/n"}}, "required": ["city", "n"],
        "$defs": {"n": {"type": "integer", "minimum": 1, "maximum": 31}}}}}
        for name in ("weather", "news")]
    for choice, names in (("required", ("weather", "news")),
                          ({"type": "function", "function": {"name": "news"}}, ("news",))):
        called = client.chat.completions.create(**ask, tools=tools, tool_choice=choice).choices[0]
        assert called.finish_reason == "tool_calls", called
        function = called.message.tool_calls[0].function
        arguments = json.loads(function.arguments)
        assert function.name in names and 1 <= arguments["n"] <= 31 and len(arguments["city"]) <= 8
    stream = client.chat.completions.create(**ask, stream=True, extra_body={"guided_regex": pattern})
    assert re.fullmatch(pattern, "".join(event.choices[0].delta.content or "" for event in stream))


def check_embeddings(openai, program, encoder):
    """The client asks for base64 by itself; each text's vector is the mean of what transformers saw."""
    import numpy
    ids = numpy.load(encoder + "/input_ids.npy")
    states = numpy.load(encoder + "/expected.npy").astype(numpy.float64)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("config.json", "model.safetensors"):
            shutil.copy(f"{encoder}/{name}", folder)
        size = json.loads(pathlib.Path(folder, "config.json").read_text())["vocab_size"]
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [f"w{i}" for i in range(5, size)]
        pathlib.Path(folder, "vocab.txt").write_text("\n".join(words) + "\n")
        with Server(program, folder, "--exact") as server:
            client = openai.OpenAI(base_url=server.address + "/v1", api_key=KEY, max_retries=0)
            ask = {"model": "tiny", "input": ids.tolist()}
            for form in ({}, {"encoding_format": "float"}):
                answer = client.embeddings.create(**ask, **form)
                assert answer.usage.prompt_tokens == ids.size
                for one, rows in zip(answer.data, states):
                    mean = rows.mean(axis=0)
                    error = numpy.abs(numpy.array(one.embedding) - mean / numpy.linalg.norm(mean))
                    assert error.max() < 1e-4, error.max()
            half = client.embeddings.create(**ask, dimensions=8).data[1].embedding
            assert len(half) == 8 and abs(numpy.linalg.norm(half) - 1) < 1e-6
            text = client.embeddings.create(model="tiny", input="w7 w8 w9")
            again = client.embeddings.create(model="tiny", input=[[2, 7, 8, 9, 3]])
            assert text.data[0].embedding == again.data[0].embedding, "[CLS] and [SEP] around it"
            try:
                client.completions.create(model="tiny", prompt="x")
                raise AssertionError("an encoder has written text")
            except openai.BadRequestError as error:
                assert "encoder" in error.message


def check_harness(client, address, model):
    """lm-evaluation-harness on a task in a file: what it sums must be what the server says."""
    texts = ["It was a bright morning, and the old man", "She looked at him and said nothing."]
    with tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder)
        (here / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
        (here / "task.yaml").write_text(
            "task: nibble_texts\ndataset_path: json\ntest_split: test\n"
            f"dataset_kwargs: {{data_files: {{test: {here}/texts.jsonl}}}}\n"
            "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n"
            "metric_list: [{metric: byte_perplexity}]\n")
        command = [sys.executable, "-m", "lm_eval", "--model", "local-completions", "--model_args",
                   f"model=tiny,base_url={address}/v1/completions,tokenizer={model},"
                   "num_concurrent=2,max_length=512", "--tasks", "nibble_texts", "--include_path", folder,
                   "--output_path", folder + "/out"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=500,
                             env={**os.environ, "OPENAI_API_KEY": KEY, "HF_DATASETS_OFFLINE": "1",
                                  "HF_HOME": folder})
        assert run.returncode == 0, run.stderr[-2000:]
        report = json.loads(next(here.glob("out/**/results*.json")).read_text())
        told = report["results"]["nibble_texts"]["byte_perplexity,none"]
    total = 0
    begin = json.loads(pathlib.Path(model, "config.json").read_text())["bos_token_id"]
    for text in texts:
        request = urllib.request.Request(
            address + "/tokenize", json.dumps({"prompt": text, "add_special_tokens": False}).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"})
        ids = json.load(urllib.request.urlopen(request))["tokens"]
        echoed = client.completions.create(model="tiny", prompt=[begin, *ids], max_tokens=1,
                                           echo=True, logprobs=1)
        total += sum(echoed.choices[0].logprobs.token_logprobs[1:-1])
    wanted = math.exp(-total / sum(len(text.encode()) for text in texts))
    assert abs(told - wanted) < 1e-3 * wanted, (told, wanted)
    return told


async def check_async(openai, address):
    async with openai.AsyncOpenAI(base_url=address + "/v1", api_key=KEY) as client:
        async def one(number):
            stream = await client.completions.create(
                model="tiny", prompt=f"Chapter {number}.", max_tokens=12, temperature=0, stream=True)
            return "".join([event.choices[0].text async for event in stream])

        together = await asyncio.gather(*[one(number) for number in range(16)])
        for number in (0, 7, 15):
            assert together[number] == await one(number), "company must not change an answer"
        # A stream that is left in the middle must not disturb what follows.
        stream = await client.completions.create(model="tiny", prompt="Once", max_tokens=200,
                                                 stream=True, extra_body={"ignore_eos": True})
        async for _ in stream:
            break
        await stream.close()
        assert await one(3) == together[3]


def check_rounding(openai, program, model):
    """A model that is rounded at load answers as `nibble run` with the same format does."""
    rounding = ["--format", "w3a16_g128"]
    with Server(program, model, *rounding) as server:
        client = openai.OpenAI(base_url=server.address + "/v1", api_key=KEY, max_retries=0)
        served = client.completions.create(model="tiny", prompt="It was a", max_tokens=12,
                                           temperature=0).choices[0].text
    told = subprocess.run([program, "--json", "run", model, "-p", "It was a", "-n", "12", *rounding],
                          check=True, capture_output=True, text=True).stdout
    assert json.loads(told)["text"] == served, (told, served)


def main(program, model, encoder):
    try:
        import openai
    except ImportError:
        print("SKIPPED: the Python package `openai` is not installed")
        return 77
    with Server(program, model, "--max-model-len", "512") as server:
        client = openai.OpenAI(base_url=server.address + "/v1", api_key=KEY, max_retries=0)
        check_completions(client)
        check_chats(client)
        check_structure(client)
        check_errors(openai, client, server.address)
        asyncio.run(check_async(openai, server.address))
        if shutil.which("curl"):
            check_curl(server)
        else:
            print("curl is not installed: not tried")
        check_rounding(openai, program, model)
        if importlib.util.find_spec("numpy"):
            check_embeddings(openai, program, encoder)
        else:
            print("numpy is not installed: embeddings not tried")
        if importlib.util.find_spec("lm_eval"):
            print("lm_eval: byte perplexity", check_harness(client, server.address, model))
        else:
            print("lm_eval is not installed: not tried")
    print(f"openai {openai.__version__}: all well")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
