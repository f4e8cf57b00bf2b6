"""Small seeds, so that inputs are many: safetensors files with a few tensors, tokenizers with a few dozen tokens.

python3 tests/fuzz/small_seeds.py safetensors|tokenizer OUT_FOLDER
"""

import json
import struct
import sys
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
MOST_TOKENS = 48
MOST_TENSORS = 5


def small_safetensors(out: Path) -> None:
    for path in sorted(GOLDEN.glob("models/*/model.safetensors")):
        whole = path.read_bytes()
        (length,) = struct.unpack("<Q", whole[:8])
        header = json.loads(whole[8 : 8 + length])
        header.pop("__metadata__", None)
        small = sorted(header.items(), key=lambda entry: entry[1]["data_offsets"][1] - entry[1]["data_offsets"][0])
        kept, data = {"__metadata__": {"format": "pt"}}, b""
        for name, entry in small[:MOST_TENSORS]:
            begin, end = entry["data_offsets"]
            kept[name] = {**entry, "data_offsets": [len(data), len(data) + end - begin]}
            data += whole[8 + length + begin : 8 + length + end]
        text = json.dumps(kept).encode()
        (out / f"{path.parent.name}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def shrink(document: dict) -> dict:
    model = document["model"]
    vocab = dict(list(model["vocab"].items())[:MOST_TOKENS])
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    for left, right in merges[:MOST_TOKENS]:
        for token in (left, right, left + right):
            if token in model["vocab"]:
                vocab[token] = model["vocab"][token]
    kept = [
        merge
        for merge, (left, right) in zip(model["merges"], merges, strict=True)
        if left in vocab and right in vocab and left + right in vocab
    ]
    return {**document, "model": {**model, "vocab": vocab, "merges": kept}}


def small_tokenizers(out: Path) -> None:
    for path in sorted(GOLDEN.glob("tokenizer/*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        if path.name.endswith(".golden.json") or "model" not in document:
            continue
        (out / path.name).write_text(json.dumps(shrink(document), ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    {"safetensors": small_safetensors, "tokenizer": small_tokenizers}[sys.argv[1]](Path(sys.argv[2]))
