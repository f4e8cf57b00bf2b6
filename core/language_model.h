#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/types.h"
#include "kernels/check.h"
#include "kernels/view.h"

namespace specmoe {

/// What the rest of the library needs to know about a model.
struct ModelInfo {
  std::string name;             // folder name
  std::string path;             // folder or file it was opened from; empty: none
  std::string architecture;     // model_type
  std::string dtype;            // of the packed weights
  std::string kv_dtype;         // of keys and values in the cache
  std::string device;           // "cpu", "cuda:0"
  std::string instruction_set;  // back end in use: "avx2"
  int vocab_size = 0;
  int max_positions = 0;  // longest text, prompt and output together
  int hidden_size = 0;
  int layers = 0;
  int moe_layers = 0;  // of these, mixtures of experts
  int experts = 0;     // per MoE layer; 0: dense
  int experts_per_token = 0;
  std::int64_t parameters = 0;
  std::int64_t active_parameters = 0;  // read for one token: dense part and experts_per_token experts a layer
  std::int64_t weight_bytes = 0;       // packed
  std::int64_t active_weight_bytes = 0;
  std::int64_t expert_bytes = 0;  // one expert of one layer, packed
  std::int64_t kv_bytes_per_token = 0;
  std::vector<TokenId> stop_tokens;   // end-of-text ids of the checkpoint
  std::optional<TokenId> mask_token;  // stands for one not known yet, if the model was taught to read it (PARD, DFlash)
  int block_size = 0;                 // of a head that proposes whole blocks (DFlash): rows of one, else 0
};

/// The keys and values of one sequence: committed rows, which are final, then the staged rows of the tree being judged.
class KVCache {
 public:
  virtual ~KVCache() = default;
  virtual int capacity() const = 0;  // most rows, committed and staged together
  virtual int committed() const = 0;
  virtual int staged() const = 0;
  /// Commits the staged rows `path` (ascending staged indices, each the parent of the next) and drops the others.
  virtual void keep(std::span<const std::int32_t> path) = 0;
  /// Cuts the committed text back to its first `length` rows and drops what is staged. Throws Error if longer.
  virtual void truncate(int length) = 0;
};

enum class LogitsWanted : std::uint8_t { kNone, kLast, kAll };

/// New rows of one sequence for one forward pass. They are staged in the cache behind what is staged there already.
///
/// tokens  [n] one or more
/// parents [n] index of the staged row that row i hangs on, counted over all staged rows of the cache (the first one
///         ever staged is 0); -1: on the last committed row. parents[i] is less than row i's own index
/// features [n, W] of a draft head: what DraftHead says; empty for every other model, and for the blocks of a head
///          that proposes them
struct RowBlock {
  KVCache* cache = nullptr;
  std::span<const TokenId> tokens;
  std::span<const std::int32_t> parents;
  LogitsWanted logits = LogitsWanted::kAll;
  std::span<const float> features{};
};

/// What one forward pass returns; buffers are reused from pass to pass.
///
/// Rows are those for which logits were wanted, block after block: row_begin[b] is block b's first one. Tapped rows are
/// all new rows: what the boundaries in `taps` hold, one beside the other. Boundary i is the stream that enters layer
/// i, `layers` what leaves the last one, `layers` + 1 the same after the final norm.
struct ForwardResult {
  int vocab = 0;
  std::vector<std::int32_t> row_begin;  // [blocks + 1]
  bool want_logits = true;              // false: argmax alone, and no row of logits is written
  std::vector<float> logits;            // [rows, V], when want_logits
  std::vector<TokenId> argmax;          // [rows], lowest id among equals
  std::vector<int> taps;                // boundaries wanted
  std::vector<float> tapped;            // [all new rows of all blocks, taps, D]
  bool want_experts = true;
  std::vector<std::int32_t> experts;  // [MoE layers, all new rows of all blocks, k] chosen experts, by rank
  int moe_layers = 0;
  int moe_rows = 0;

  std::span<const float> logits_row(int row) const {
    return {logits.data() + std::size_t(row) * vocab, std::size_t(vocab)};
  }
};

/// What is left of a model that drafts for itself.
struct ModelPart {
  int experts_per_token = 0;          // of each mixture layer; 0: as many as the whole has
  std::vector<int> skipped_layers{};  // ascending; they hand on what they get
};

class LanguageModel;

/// A head that drafts for the model it was trained on, its target (EAGLE). A row of it is made of a token and of the
/// target's hidden rows at the token before, or, where the target has not been yet, of what the head handed on there.
///
/// With a ModelInfo::block_size (DFlash) it is fed otherwise: rows with the target's hidden rows at their own token are
/// only cached, without logits; rows without features, the text's last token and mask tokens behind it, are a block, of
/// which row i > 0 gives the logits of the token i places on. The block is dropped by KVCache::truncate.
///
/// model     its rows need RowBlock::features: W = taps * D of the target, or D of its own (not for blocks)
/// taps      boundaries of the target
/// recycled  boundary of its own that it hands on
struct DraftHead {
  std::shared_ptr<LanguageModel> model;
  std::vector<int> taps;
  int recycled = 0;
};

/// Heads that draft for the model they were trained on, its target, each by itself (Medusa). From the target's hidden
/// row at a token, after the final norm, head i expects the token i + 2 places on.
class MedusaHeads {
 public:
  virtual ~MedusaHeads() = default;
  virtual int count() const = 0;
  /// result.logits and result.argmax of one head for rows [n, D]. Row t has the same bits whatever other rows there
  /// are.
  virtual void forward(int head, kernels::Rows<const float> rows, ForwardResult& result) = 0;
};

/// A decoder-only language model that runs whole passes over ragged trees of several sequences. Target and neural
/// drafters are both one. Row t of a pass has the same bits whatever other rows are in the pass.
class LanguageModel {
 public:
  virtual ~LanguageModel() = default;
  virtual const ModelInfo& info() const = 0;
  /// capacity  most committed and staged rows together
  /// text      tokens of the longest text meant for it: some models treat long texts differently from the first token
  ///           on, and must not take room for a tree for text. Nothing: as capacity
  virtual std::unique_ptr<KVCache> new_cache(int capacity, std::optional<int> text = std::nullopt) const = 0;
  /// Stages the rows of every block and computes them. Throws Error before touching any cache when one would overflow
  /// or a token is outside the vocabulary. Blocks must use different caches.
  virtual void forward(std::span<const RowBlock> blocks, ForwardResult& result) = 0;
  /// Of the max_positions, how many a token takes: one, but where a model reads it as several of its own.
  virtual int positions(TokenId /*token*/) const { return 1; }
  /// The same weights, some of them left out, as a model with caches of its own. Throws Error when it has no such
  /// experts or layers, or runs whole only.
  virtual std::shared_ptr<LanguageModel> partial(const ModelPart& /*part*/) const {
    fail("model ", info().name, " runs whole only; draft with another model");
  }
  /// Opens the draft head in a folder, which may use this model's embedding and output matrix. Throws Error when it was
  /// made for another model, or this one cannot be tapped.
  virtual DraftHead draft_head(const std::string& path) const {
    fail("draft head '", path, "': model ", info().name, " takes no heads; draft with a model");
  }
  /// The same for a folder of Medusa heads, which may use this model's output matrix.
  virtual std::shared_ptr<MedusaHeads> medusa_heads(const std::string& path) const {
    fail("Medusa heads '", path, "': model ", info().name, " takes none; draft with a model");
  }
};

}  // namespace specmoe
