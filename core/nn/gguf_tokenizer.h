#pragma once

#include <nlohmann/json_fwd.hpp>

#include "core/nn/gguf.h"

namespace specmoe::nn {

/// Whether a GGUF file holds a tokenizer at all.
bool has_tokenizer(const GgufFile& file);

/// The tokenizer of a GGUF file as the tokenizer.json that Hugging Face would have: byte-level BPE ("gpt2", cut into
/// words as tokenizer.ggml.pre says) or SentencePiece BPE with byte fallback ("llama", whose merges follow from the
/// scores). Throws Error for other models and for a cut that is not known: guessing it would change ids silently.
nlohmann::json gguf_tokenizer(const GgufFile& file);

}  // namespace specmoe::nn
