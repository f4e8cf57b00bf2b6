"""Trains the byte-level BPE tokenizer (digits one by one) and writes its Hugging Face files.

python train_tokenizer.py --output FOLDER
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from corpus import BEGIN, BEGIN_ID, END, END_ID, code_files, read_code
from word_problems import make_problem

VOCAB_SIZE = 2048
CONTEXT = 1024
SEED = 1
PROBLEM_COUNT = 12_000
CODE_BYTES = 4_000_000


def training_texts() -> list[str]:
    """About equal bytes of problems and of standard-library files, held-out data excluded."""
    rng = Random(f"tokenizer/{SEED}")
    problems = [make_problem(rng) for _ in range(PROBLEM_COUNT)]
    texts = [p.prompt + p.solution for p in problems]
    files = code_files(held_out=False)
    rng.shuffle(files)
    total = 0
    for path in files:
        text = read_code(path)
        texts.append(text)
        total += len(text)
        if total > CODE_BYTES:
            break
    return texts


def train() -> Tokenizer:
    """The trained tokenizer; encoding adds the begin token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[BEGIN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_texts(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A {BEGIN} $B:1",
        special_tokens=[(BEGIN, BEGIN_ID)],
    )
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    assert (tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(END)) == (BEGIN_ID, END_ID)
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    save(train(), parser.parse_args().output)


if __name__ == "__main__":
    main()
