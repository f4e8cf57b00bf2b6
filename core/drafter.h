#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/acceptance.h"
#include "core/draft.h"
#include "core/language_model.h"
#include "core/logit_changes.h"
#include "core/registry.h"
#include "core/sampling_params.h"
#include "kernels/view.h"

namespace specmoe {

/// A drafter's memory of one sequence: its cache, its text.
class DraftState {
 public:
  virtual ~DraftState() = default;
};

/// What a drafter says about the token after one node: either rows to draw from, as indices into the draft's rows (one,
/// or one per merged drafter), or tokens in order of preference, which makes the draft deterministic. Both empty: it
/// has nothing to propose there.
struct Proposal {
  std::vector<std::int32_t> rows;
  std::vector<TokenId> tokens;
};

/// One sequence's question in a batched propose().
///
/// frontier   nodes of draft->tree; their ancestors have all been frontier nodes before in this step
/// changes    of the request, whose text ends in the tree's root: for drafters that propose by logits
/// uniforms   for drafters that make random choices of their own (Purpose::kPlugin)
/// argmax_suffices  tokens may be proposed instead of rows: the draft is greedy and takes one child a node
/// proposals  out, for each frontier node; empty and at least frontier.size() long when it comes
struct ProposeRequest {
  DraftState* state = nullptr;
  Draft<float>* draft = nullptr;
  std::span<const NodeId> frontier;
  const SamplingParams* sampling = nullptr;
  LogitChanges* changes = nullptr;
  UniformSource<double>* uniforms = nullptr;
  bool argmax_suffices = false;
  std::vector<Proposal>* proposals = nullptr;
};

/// Prompt lookup: see draft/ngram.cpp.
struct NgramRule {
  int max_n = 0;
  int min_n = 0;
  int choices = 0;
};

/// How to draft without the drafter: what whole steps on a device do in its place.
///
/// model  its rows after the text and a node's path are what is proposed there; null: `ngram` proposes
struct DraftRecipe {
  std::shared_ptr<LanguageModel> model;
  NgramRule ngram;
};

/// Opens a checkpoint on the target's device and threads; dtype names the type of its packed weights.
using ModelLoader = std::function<std::shared_ptr<LanguageModel>(const std::string& path, const std::string& dtype)>;

/// What a drafter may use when the engine is assembled.
struct DraftContext {
  std::shared_ptr<LanguageModel> target;
  ModelLoader load_model;  // set by whoever assembles the engine
};

/// A checkpoint that a drafter opens: a model by itself, or what LanguageModel::draft_head or medusa_heads of the
/// target open.
struct DraftCheckpoint {
  enum class Kind : std::uint8_t { kModel, kDraftHead, kMedusaHeads };
  std::string path;
  Kind kind = Kind::kModel;
};

/// Hidden rows of the target: of each row, the boundaries that Drafter::taps() names. Without taps there are none.
using HiddenRows = kernels::Rows<const float>;

/// The cheap proposer of tokens.
class Drafter {
 public:
  virtual ~Drafter() = default;
  /// Whether it proposes tokens, not rows: every draft of it is then deterministic.
  virtual bool deterministic() const = 0;
  /// Rows it proposes per node: 1, or the number of merged drafters.
  virtual int rows_per_node() const { return 1; }
  /// What attach() will open: with the parameters, all that its proposals depend on.
  virtual std::vector<DraftCheckpoint> checkpoints() const { return {}; }
  /// Loads what it needs. Throws Error when it does not fit the target (vocabularies that differ).
  virtual void attach(const DraftContext& context) = 0;
  /// Boundaries of the target whose hidden rows it drafts from (ForwardResult::taps). Called once it is attached.
  virtual std::vector<int> taps() const { return {}; }
  /// What it does, as data; nothing when only the host can do it. Called once it is attached.
  virtual std::optional<DraftRecipe> recipe() const { return std::nullopt; }
  /// Starts a sequence.
  ///
  /// prompt    the committed text, one token or more
  /// hidden    of each token of the prompt but the last
  /// capacity  bounds text and tree together
  virtual std::unique_ptr<DraftState> open(std::span<const TokenId> prompt, HiddenRows hidden, int capacity) = 0;
  virtual void propose(std::span<const ProposeRequest> requests) = 0;
  /// The step's outcome: the path kept and the extra token, which is the next root. hidden: of each node of the tree.
  virtual void commit(DraftState& state, const TokenTree& tree, const Verdict& verdict, HiddenRows hidden) = 0;
};

Registry<Drafter>& drafters();

}  // namespace specmoe
