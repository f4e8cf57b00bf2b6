"""Writes tests/golden/tokenizer: small trained tokenizer.json files and what the `tokenizers` package does with them.

    .venv/bin/python tests/golden/make_tokenizer_fixtures.py [--texts 2000] [--seed 1] [--output FOLDER]

For each style, STYLE.json is the tokenizer and STYLE.golden.json lists its results for the texts of texts.json, in
order: ids, a hash of the byte offsets, and, where it is not the text itself, the decoded text. Long lists are hashed.
From the 300th text on a result is one hash over all three. STYLE.gguf says the same tokenizer in GGUF metadata.
"""

from __future__ import annotations

import argparse
import builtins
import inspect
import itertools
import json
import random
import unicodedata
from pathlib import Path

import gguf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.integrations.ggml import GGUFTokenizerSkeleton

GPT2 = None  # ByteLevel's own expression
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK3 = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
]
DEEPSEEK2 = [
    r"[\r\n]",
    r"\s?["
    r"A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}\x{295}-\x{2af}"
    r"\x{370}-\x{373}\x{376}-\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}\x{38e}-\x{3a1}"
    r"\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556}\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}"
    r"\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}"
    r"\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d}\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}"
    r"\x{1f5d}\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc}"
    r"\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc}\x{2102}\x{2107}"
    r"\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}\x{2124}\x{2126}\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134}"
    r"\x{2139}\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e}\x{2183}-\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}"
    r"\x{2ceb}-\x{2cee}\x{2cf2}-\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f}\x{a771}-\x{a787}"
    r"\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}"
    r"\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}\x{10cc0}-\x{10cf2}"
    r"\x{118a0}-\x{118df}\x{1e900}-\x{1e943}"
    r"]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    r"\p{N}+",
]
MARK = "\u2581"
LONG = 200  # lists above this length are stored as a hash
READABLE = 300  # later texts are stored as a hash each


def corpus() -> list[str]:
    """Docstrings of the standard library's built-ins, and some text in other scripts."""
    documented = [getattr(builtins, name) for name in sorted(dir(builtins))]
    texts = [inspect.getdoc(thing) or "" for thing in documented]
    texts += ["naïve café über straße, 'twas what's we've I'll don't", "Größe 12.345,67 € – 1 234 567 £ 3/4"] * 20
    texts += [
        "日本語のテキスト、中文文本。한국어 텍스트",
        "Привет, мир! Γειά σου κόσμε",
        "שלום עולם مرحبا بالعالم",
    ] * 20
    return texts


# --- one tokenizer.json per style ------------------------------------------------------------------------------------


def added(token_id: int, content: str, **options: bool) -> dict:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": token_id, "content": content, **flags, **options}


def template(*ids_and_tokens: tuple[int, str]) -> dict:
    """Those tokens, then the text."""
    specials = [{"SpecialToken": {"id": token, "type_id": 0}} for _, token in ids_and_tokens]
    text = [{"Sequence": {"id": "A", "type_id": 0}}]
    second = [{"Sequence": {"id": "B", "type_id": 1}}]
    table = {token: {"id": token, "ids": [token_id], "tokens": [token]} for token_id, token in ids_and_tokens}
    return {
        "type": "TemplateProcessing",
        "single": specials + text,
        "pair": specials + text + second,
        "special_tokens": table,
    }


def train(pre_tokenizer, specials: list[str], alphabet: list[str], vocab_size: int) -> dict:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return json.loads(tokenizer.to_str())


def split(pattern: str, behavior: str = "Isolated") -> dict:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


def byte_level(**options: bool) -> dict:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False, **options}


def sequence(*components: dict) -> dict:
    return {"type": "Sequence", "pretokenizers": list(components)}


def byte_level_style(pre_tokenizer: dict, specials: list[str], vocab_size: int = 700, **changes: object) -> dict:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained = train(pre_tokenizers.ByteLevel(add_prefix_space=False), specials, alphabet, vocab_size)
    return {**trained, "pre_tokenizer": pre_tokenizer, **changes}


def sentencepiece_style(vocab_size: int = 800, **changes: object) -> dict:
    """Byte-fallback BPE: <unk> <s> </s> and 256 byte tokens first, then pieces where U+2581 stands for a space."""
    specials = ["<unk>", "<s>", "</s>"]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trained = train(pre_tokenizers.Metaspace(), specials + byte_tokens, [], vocab_size)
    vocab = trained["model"]["vocab"]
    rare = {token for token in vocab if len(token) == 1 and ord(token) > 0xFF and token != MARK}
    merges = [pair for pair in trained["model"]["merges"] if not rare & set("".join(pair))]
    kept = [token for token in sorted(vocab, key=vocab.get) if not rare & set(token)]
    trained["added_tokens"] = [added(i, token, special=True) for i, token in enumerate(specials)]
    trained["model"].update(
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
        merges=merges,
        vocab={token: i for i, token in enumerate(kept)},
    )
    trained["post_processor"] = template((1, "<s>"))
    trained["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": MARK}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    return {**trained, **changes}


def scores_of(style: dict) -> list[float]:
    """What SentencePiece would store for a vocabulary: the later a token was made, the lower."""
    rank = {left + right: i for i, (left, right) in enumerate(style["model"]["merges"])}
    return [-float(rank.get(token, -1) + 1) for token in style["model"]["vocab"]]


def scored(style: dict) -> dict:
    """The style with the merges that transformers derives from the scores: all ways to make each token."""
    tokens = {"tokens": list(style["model"]["vocab"]), "scores": scores_of(style)}
    style["scores"] = tokens["scores"]
    style["model"]["merges"] = [list(merge) for merge in GGUFTokenizerSkeleton(tokens).merges]
    return style


def mark_spaces() -> dict:
    return {"type": "Replace", "pattern": {"String": " "}, "content": MARK}


def prefix_and_mark() -> dict:
    return {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK}, mark_spaces()]}


def metaspace(scheme: str, split_words: bool) -> dict:
    return {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": split_words}


def gpt2() -> dict:
    style = byte_level_style(
        byte_level(use_regex=True), ["<|endoftext|>"], post_processor=byte_level(trim_offsets=False)
    )
    style["model"]["merges"] = ["#version: 0.2"] + [" ".join(pair) for pair in style["model"]["merges"]]
    return style


def llama3() -> dict:
    tokens = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    processor = {"type": "Sequence", "processors": [byte_level(trim_offsets=False), template((0, tokens[0]))]}
    style = byte_level_style(sequence(split(LLAMA3), byte_level()), tokens, post_processor=processor)
    style["model"]["ignore_merges"] = True
    style["model"]["merges"] = style["model"]["merges"][:-60]  # some words are in the vocabulary only
    return style


def qwen2() -> dict:
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return byte_level_style(
        sequence(split(QWEN2), byte_level()),
        tokens,
        normalizer={"type": "NFC"},
        post_processor=byte_level(trim_offsets=False),
    )


def smollm2() -> dict:
    digits = {"type": "Digits", "individual_digits": True}
    return byte_level_style(sequence(digits, byte_level(use_regex=True)), ["<|endoftext|>", "<|im_start|>"])


def o200k() -> dict:
    return byte_level_style(sequence(split(O200K), byte_level()), ["<|endoftext|>"], 600)


def deepseek(patterns: list[str]) -> dict:
    splits = [split(pattern) for pattern in patterns]
    begin = "<\uff5cbegin\u2581of\u2581sentence\uff5c>"
    return byte_level_style(sequence(*splits, byte_level()), [begin], 600, post_processor=template((0, begin)))


def deepseek2() -> dict:
    return deepseek(DEEPSEEK2)


def deepseek3() -> dict:
    return deepseek(DEEPSEEK3)


def llama2_legacy() -> dict:
    style = scored(sentencepiece_style(normalizer=prefix_and_mark(), pre_tokenizer=None))
    style["model"]["merges"] = [" ".join(pair) for pair in style["model"]["merges"]]
    return style


def llama2() -> dict:
    return sentencepiece_style(pre_tokenizer=metaspace("first", False))


def mixtral() -> dict:
    return scored(sentencepiece_style(600, normalizer=prefix_and_mark(), pre_tokenizer=None))


def gemma() -> dict:
    by_space = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    style = scored(sentencepiece_style(600, normalizer=mark_spaces(), pre_tokenizer=by_space))
    style["decoder"]["decoders"].pop()
    return style


def odd() -> dict:
    """Every option that the families leave alone."""
    normalizers = [{"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": r"\s{3,}|-{2,}"}, "content": "\u2026 "}]
    grouped = {"type": "Digits", "individual_digits": False}
    splits = [
        split(",", "Removed"),
        split(r"[.;]", "MergedWithNext"),
        split("!", "Contiguous"),
        {**split(r"\w+\s*|[^\w\s]+", "MergedWithPrevious"), "invert": True},
    ]
    style = byte_level_style(
        sequence(grouped, *splits, byte_level(add_prefix_space=True, use_regex=True)),
        ["<mask>", "<sep>"],
        600,
        normalizer={"type": "Sequence", "normalizers": normalizers},
        post_processor={"type": "Sequence", "processors": [byte_level(add_prefix_space=True)]},
    )
    size = len(style["model"]["vocab"])
    style["added_tokens"] = [
        added(0, "<mask>", lstrip=True, single_word=True, special=True),
        added(1, "<sep>", rstrip=True, special=True),
        added(size, "cafe\u0301", normalized=True),
        added(size + 1, "<mask>ed", lstrip=True, rstrip=True),
        added(size + 2, "  ", normalized=True),
        added(size + 3, "\u65e5\u672c"),
    ]
    return style


def odd_pieces() -> dict:
    """Byte fallback without all bytes, unknown tokens one by one, words split at every mark."""
    style = sentencepiece_style(
        600, pre_tokenizer=metaspace("always", True), post_processor=None, decoder=metaspace("always", True)
    )
    style["model"]["fuse_unk"] = False
    vocab = style["model"]["vocab"]
    missing = {"<0xE6>", "<0xF0>", "<0xC3>"}
    style["model"]["vocab"] = {token: i for i, token in enumerate(t for t in vocab if t not in missing)}
    return style


STYLES = (
    gpt2,
    llama3,
    qwen2,
    smollm2,
    o200k,
    deepseek2,
    deepseek3,
    llama2_legacy,
    llama2,
    mixtral,
    gemma,
    odd,
    odd_pieces,
)


# --- the same as GGUF metadata ---------------------------------------------------------------------------------------

# style: tokenizer.ggml.pre, nothing for SentencePiece
GGUF_STYLES = {
    "gpt2": "gpt-2",
    "llama3": "llama-bpe",
    "qwen2": "qwen2",
    "smollm2": "smollm",
    "o200k": "gpt-4o",
    "deepseek2": "deepseek-llm",
    "deepseek3": "deepseek-v3",
    "llama2_legacy": None,
    "mixtral": None,
    "gemma": None,
}


def write_gguf(path: Path, style: dict, pre: str | None) -> None:
    vocab, merges = style["model"]["vocab"], style["model"]["merges"]
    special = {token["content"] for token in style["added_tokens"]}
    kinds = [3 if token in special else 6 if token.startswith("<0x") else 1 for token in vocab]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama" if pre is None else "gpt2")
    writer.add_token_list(list(vocab))
    if pre is None:
        kinds[vocab["<unk>"]] = 2
        writer.add_token_scores(style["scores"])
        writer.add_unk_token_id(vocab["<unk>"])
        writer.add_add_space_prefix(len(style["decoder"]["decoders"]) == 4)
    else:
        writer.add_tokenizer_pre(pre)
        pairs = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
        writer.add_token_merges([pair for pair in pairs if not pair.startswith("#version")])
    writer.add_token_types(kinds)
    begin = (style["post_processor"] or {}).get("special_tokens") or next(
        (part["special_tokens"] for part in (style["post_processor"] or {}).get("processors", ())[1:]), {}
    )
    writer.add_add_bos_token(bool(begin))
    for token in begin.values():
        writer.add_bos_token_id(token["ids"][0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


# --- texts -----------------------------------------------------------------------------------------------------------

AWKWARD = [
    "", " ", "  ", "   ", "\n", "\r\n", "\r\n\r\n", "\t\t x", " \n \n  y", "a\u00a0b", "\u00a0\u00a0", "a\u180eb \u180e c",
    "\u2000\u2001\u3000wide", "\x00", "\x00\x01\x02 control \x1b[0m \x7f", "\ufeffbom", "\u200bzero\u200cwidth\u200d",
    "👩‍👩‍👧‍👦 family", "👍🏽👍🏿", "🇩🇪🇫🇷", "❤️ ☺️", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "e\u0301e\u0301 \u00e9", "a\u0323\u0307 a\u0307\u0323", "\u1e69 s\u0323\u0307 s\u0307\u0323",
    "\u0301leading mark", "Z̸̡̢̛̗̘a̷l̶g̴o̵", "\u212b \u00c5 A\u030a", "\u0958 \u0915\u093c", "\uac00 \u1100\u1161 \u1100\u1161\u11a8 \uac00\u11a8", "\ufb01 ligature",
    "a\u0346\u0301 a\u0327\u0301", "\u0344\u0f73 \u0f71\u0f72", "\U0001d15e \U0001d157\U0001d165", "日本語のテキスト", "中文文本，没有空格。", "한국어 텍스트", "ภาษาไทยไม่มีช่องว่าง", "مرحبا بالعالم ١٢٣",
    "שָׁלוֹם עוֹלָם", "हिन्दी में पाठ", "Привет, мир!", "Γειά σου", "\u0130stanbul \u0131\u015f\u0131k", "ǅ ǆ Ǆ", "½ ² ³ ₄ Ⅷ ① 六 ௧", "0", "1234567890",
    "12 345 6 7890 12345678", "3.14159e-10", "0xDEADBEEF", "x=1,y=2;z=3", "don't we'll I'm you're they've he'd it's 'S 'LL", "O'REILLY'S",
    "don\u2019t", "naïve café", "hello world", " hello world", "hello  world   !", "Hello, World!\n\nBye.", "tabs\tand\nlines\r", "trailing   ",
    "   leading", "def f(x):\n    return x + 1\n\n\nclass A: pass\n", "if (a&&b||!c) {++d;}", "https://example.org/a?b=c&d=%20#e", "a_b-c.d/e\\f",
    "!!!???...", "--- === ***", "a,b,,c", "x.y;z!!w", "“quotes” ‘single’ «angle»", "—–-‐", "€£¥₿", "∀x∈ℝ: x²≥0", "\ud7ff\ue000\uffff", "\U0010ffff",
    "<s>", "</s>x", "<unk>", "a<s>b </s> c", "<|endoftext|>", "a<|endoftext|><|endoftext|>b", "<|im_start|>user\nHi<|im_end|>\n", "<|begin_of_text|>x",
    "<|eot_id|", "<0x41>", "<0x0A><0x0a>", "▁", "▁▁a▁", " ▁ x", "Ġ", "ĠaĊ", "<mask>", "a <mask> b", "a<mask>", "<mask>ed", "x <mask>ed  y", "<mask>\u0301",
    "<sep>   x", "  <sep>\t\n<mask>", "café cafe\u0301", "日本", "a  b    c", "....   ----", "<<mask>>", "é<mask>é", "\u2003<mask>\u2003",
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>hi",
]  # fmt: skip

LONG_TEXTS = [
    ["ab", 5000], ["a", 10000], ["é", 3000], ["日本", 2500], [" ", 5000], ["\n", 3000], ["1", 4000], ["👍", 1500], ["a ", 2500],
    ["e\u0301", 2000], ["<mask>", 500], ["<s>", 1000], ["_-", 3000], [" the quick brown fox", 300], ["'s", 2000], ["\u0323\u0307", 1000],
]  # fmt: skip

RANDOM_PARTS = [
    "the ", "and", " Of", "ing", "tion", "x", "Z", "  ", "\n", "\r\n", "\t", "1", "42", "999", "é", "e\u0301", "ß", "日", "本語", "한", "ا", "ש", "я", "👍", "🏽", "\u200d",
    "\u0301", "\u0323", "\u00a0", "'s", "'LL", ".", ",", "!", "--", "(", "_", "<s>", "<mask>", "<sep>", "<|endoftext|>", "<|im_start|>", "▁", "Ġ", "½", "\u3000", "\x07",
    "\U0001d15e", "\uac00", "\u1161", "\u11a8", "<0x41>",
]  # fmt: skip


RANDOM_RANGES = [
    (0, 0x7F), (0x80, 0x24F), (0x300, 0x36F), (0x370, 0x1FFF), (0x2000, 0x33FF), (0x4E00, 0xD7FF), (0xE000, 0xFFFF),
    (0x1F300, 0x1FAFF), (0x10000, 0x10FFFF),
]  # fmt: skip


def random_character(rng: random.Random) -> str:
    """Any character that Python's Unicode version knows: engines differ over younger ones."""
    while True:
        character = chr(rng.randint(*rng.choice(RANDOM_RANGES)))
        if unicodedata.category(character) != "Cn":
            return character


def random_text(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return "".join(random_character(rng) for _ in range(rng.randint(1, 24)))
    return "".join(rng.choice(RANDOM_PARTS) for _ in range(rng.randint(1, 16)))


def make_texts(count: int, seed: int) -> list[object]:
    """Strings, and [string, times] for long ones."""
    rng = random.Random(seed)
    documentation = list(itertools.islice((text[:120] for text in corpus() if len(text) > 200), 30))
    fixed = [*AWKWARD, *documentation, *LONG_TEXTS]
    return [*fixed, *(random_text(rng) for _ in range(max(0, count - len(fixed))))]


# --- what the package does -------------------------------------------------------------------------------------------


def fnv(numbers: list[int]) -> str:
    """FNV-1a over the numbers as little-endian 32-bit words."""
    value = 0xCBF29CE484222325
    for number in numbers:
        for byte in (number & 0xFFFFFFFF).to_bytes(4, "little"):
            value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def byte_offsets(text: str, offsets: list[tuple[int, int]]) -> list[int]:
    starts = [0, *itertools.accumulate(len(character.encode()) for character in text)]
    return [starts[end] for pair in offsets for end in pair]


def result_of(tokenizer: Tokenizer, text: str) -> dict:
    encoding = tokenizer.encode(text)
    result = {"ids": encoding.ids, "offsets": fnv(byte_offsets(text, encoding.offsets))}
    if len(encoding.ids) > LONG:
        result["ids"] = fnv(encoding.ids)
    decoded = tokenizer.decode(encoding.ids)
    if decoded != text:
        result["text"] = decoded if len(decoded) <= LONG else fnv(list(decoded.encode()))
    return result


def hash_of(tokenizer: Tokenizer, text: str) -> str:
    encoding = tokenizer.encode(text)
    decoded = list(tokenizer.decode(encoding.ids).encode())
    return fnv([*encoding.ids, *byte_offsets(text, encoding.offsets), *decoded])


def decodings(tokenizer: Tokenizer, rng: random.Random, count: int) -> list[dict]:
    """Random ids, broken characters and special tokens included."""
    size = tokenizer.get_vocab_size()
    cases = []
    for _ in range(count):
        low = rng.random() < 0.5  # the byte tokens are the first ones
        ids = [rng.randrange(min(size, 300) if low else size) for _ in range(rng.randint(1, 12))]
        shown = tokenizer.decode(ids, skip_special_tokens=False)
        cases.append({"ids": ids, "text": tokenizer.decode(ids), "with_special": shown})
    return cases


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")


def write_list(path: Path, key: str, rows: list[object], **others: object) -> None:
    """One row a line, so that a change shows as one."""
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    head = "".join(
        f"{json.dumps(name)}:{json.dumps(value, separators=(',', ':'))},\n" for name, value in others.items()
    )
    path.write_text(f'{{{head}"{key}":[\n{lines}\n]}}\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--decodings", type=int, default=60)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "tokenizer")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    texts = make_texts(arguments.texts, arguments.seed)
    write_list(arguments.output / "texts.json", "texts", texts)
    for style in STYLES:
        document = style()
        if style.__name__ in GGUF_STYLES:
            write_gguf(arguments.output / f"{style.__name__}.gguf", document, GGUF_STYLES[style.__name__])
        document.pop("scores", None)
        write(arguments.output / f"{style.__name__}.json", document)
        tokenizer = Tokenizer.from_str(json.dumps(document))
        whole = [text if isinstance(text, str) else text[0] * text[1] for text in texts]
        cases = decodings(tokenizer, random.Random(f"{style.__name__}/{arguments.seed}"), arguments.decodings)
        write_list(
            arguments.output / f"{style.__name__}.golden.json",
            "encodings",
            [(result_of if i < READABLE else hash_of)(tokenizer, text) for i, text in enumerate(whole)],
            decodings=cases,
        )
        print(f"{style.__name__}: {tokenizer.get_vocab_size()} tokens, {len(texts)} texts")


if __name__ == "__main__":
    main()
