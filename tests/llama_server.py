"""A real llama.cpp server with a tiny random model, as a program of its own.

    python tests/llama_server.py --directory DIR [--port 0]

Writes the model into DIR, loads it, prints the server's URL in one line, and serves until its
standard input ends or it is killed. A separate process, because tests kill it in the middle.

Unless `temperature` says otherwise the model speaks only `a` … `z` and spaces, and never ends by
itself: an answer has exactly `max_tokens` tokens, as long as the context (16,384) lasts, which
takes some seconds.
"""

import argparse
import random
import struct
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path

import xllamacpp

CONTEXT_TOKENS = 16_384
WIDTH, HEADS, INNER_WIDTH, LAYERS = 64, 4, 128, 2
ALIGNMENT = 32

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # token types of SentencePiece
UINT32, FLOAT32, STRING, ARRAY, INT32 = 4, 6, 8, 9, 5  # value types of GGUF

CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def vocabulary() -> Iterator[tuple[str, int]]:
    yield from (("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL))
    yield from ((f"<0x{byte:02X}>", BYTE) for byte in range(256))
    yield from ((letter, NORMAL) for letter in "▁abcdefghijklmnopqrstuvwxyz")


TOKENS = list(vocabulary())


def packed_text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def packed_array(kind: int, items: list[bytes]) -> bytes:
    return struct.pack("<IQ", kind, len(items)) + b"".join(items)


def metadata() -> Iterator[tuple[str, int, bytes]]:
    def count(value: int) -> bytes:
        return struct.pack("<I", value)

    yield "general.architecture", STRING, packed_text("llama")
    yield "llama.context_length", UINT32, count(CONTEXT_TOKENS)
    yield "llama.embedding_length", UINT32, count(WIDTH)
    yield "llama.block_count", UINT32, count(LAYERS)
    yield "llama.feed_forward_length", UINT32, count(INNER_WIDTH)
    yield "llama.attention.head_count", UINT32, count(HEADS)
    yield "llama.attention.layer_norm_rms_epsilon", FLOAT32, struct.pack("<f", 1e-5)
    yield "tokenizer.ggml.model", STRING, packed_text("llama")
    names = packed_array(STRING, [packed_text(name) for name, _ in TOKENS])
    yield "tokenizer.ggml.tokens", ARRAY, names
    scores = packed_array(FLOAT32, [struct.pack("<f", 0.0) for _ in TOKENS])
    yield "tokenizer.ggml.scores", ARRAY, scores
    kinds = packed_array(INT32, [struct.pack("<i", kind) for _, kind in TOKENS])
    yield "tokenizer.ggml.token_type", ARRAY, kinds
    yield "tokenizer.ggml.unknown_token_id", UINT32, count(0)
    yield "tokenizer.ggml.bos_token_id", UINT32, count(1)
    yield "tokenizer.ggml.eos_token_id", UINT32, count(2)
    yield "tokenizer.chat_template", STRING, packed_text(CHAT_TEMPLATE)


def tensors() -> Iterator[tuple[str, tuple[int, ...], list[float]]]:
    """Name, shape (fastest dimension first) and values."""
    noise = random.Random(1)

    def weights(rows: int, columns: int) -> list[float]:
        return [noise.gauss(0, 0.3) for _ in range(rows * columns)]

    ones = [1.0] * WIDTH
    yield "token_embd.weight", (WIDTH, len(TOKENS)), weights(len(TOKENS), WIDTH)
    for layer in range(LAYERS):
        yield f"blk.{layer}.attn_norm.weight", (WIDTH,), ones
        for part in ("q", "k", "v", "output"):
            yield f"blk.{layer}.attn_{part}.weight", (WIDTH, WIDTH), weights(WIDTH, WIDTH)
        yield f"blk.{layer}.ffn_norm.weight", (WIDTH,), ones
        for part in ("gate", "up"):
            yield (
                f"blk.{layer}.ffn_{part}.weight",
                (WIDTH, INNER_WIDTH),
                weights(INNER_WIDTH, WIDTH),
            )
        yield f"blk.{layer}.ffn_down.weight", (INNER_WIDTH, WIDTH), weights(WIDTH, INNER_WIDTH)
    yield "output_norm.weight", (WIDTH,), ones
    silent = sum(kind != NORMAL for _, kind in TOKENS)
    output = [0.0] * (silent * WIDTH) + weights(len(TOKENS) - silent, WIDTH)
    yield "output.weight", (WIDTH, len(TOKENS)), output


def padding(length: int) -> bytes:
    return bytes(-length % ALIGNMENT)


def write_model(path: Path) -> None:
    """Write the model as GGUF 3: header, metadata, tensor table, tensors at aligned offsets."""
    table, data = b"", b""
    parts = list(tensors())
    for name, shape, values in parts:
        head = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        table += packed_text(name) + head + struct.pack("<IQ", 0, len(data))
        raw_values = array("f", values).tobytes()
        data += raw_values + padding(len(raw_values))
    entries = [packed_text(key) + struct.pack("<I", kind) + raw for key, kind, raw in metadata()]
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(parts), len(entries)) + b"".join(entries) + table
    path.write_bytes(head + padding(len(head)) + data)


def parameters(model: Path, port: int) -> xllamacpp.CommonParams:
    chosen = xllamacpp.CommonParams()
    chosen.model.path = str(model)
    chosen.hostnames = ["127.0.0.1"]
    chosen.port = port
    chosen.n_ctx = CONTEXT_TOKENS
    chosen.n_parallel = 1
    chosen.cpuparams.n_threads = 1
    chosen.warmup = False
    chosen.embedding = True
    chosen.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    chosen.use_jinja = True
    chosen.sampling.temp = 0.0
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    model = arguments.directory / "tiny.gguf"
    write_model(model)
    server = xllamacpp.Server(parameters(model, arguments.port))
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
