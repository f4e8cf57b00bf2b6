#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/drafter.h"

namespace specmoe {

/// Proposes after `node` what row `row` of a pass says, changed as the request wants logits: the argmax where that
/// suffices, else probabilities, or nothing where the request forbids all that the drafter has.
void propose_row(const ForwardResult& result, int row, NodeId node, const ProposeRequest& request, Proposal& proposal,
                 std::vector<std::int32_t>& scratch);

/// The same for every frontier node, by the rows from `first_row` on.
void propose_rows(const ForwardResult& result, int first_row, const ProposeRequest& request,
                  std::vector<std::int32_t>& scratch);

/// A drafter that is a language model with the target's vocabulary: its rows after the text and a node's path are what
/// it proposes there. A cache of its own follows the text; the missing end of it is computed with the next root, and a
/// draft's last level, which nobody asked about, not at all. What is special to a kind of model is attach().
class ModelDrafter : public Drafter {
 public:
  bool deterministic() const override { return false; }
  std::optional<DraftRecipe> recipe() const override { return DraftRecipe{model_, {}}; }
  std::unique_ptr<DraftState> open(std::span<const TokenId> prompt, HiddenRows hidden, int capacity) override;
  void propose(std::span<const ProposeRequest> requests) override;
  void commit(DraftState& state, const TokenTree& tree, const Verdict& verdict, HiddenRows hidden) override;

 protected:
  /// name  of the drafter, for messages
  explicit ModelDrafter(std::string name) : name_(std::move(name)) {}

  const std::string name_;
  std::shared_ptr<LanguageModel> model_;  // set by attach()

 private:
  struct State;

  bool stage(State& state, const ProposeRequest& request) const;
  static void keep_accepted(State& state, const TokenTree& tree, const Verdict& verdict);

  ForwardResult result_;
  std::vector<RowBlock> blocks_;
  std::vector<const ProposeRequest*> asked_;
  std::vector<std::int32_t> scratch_;
};

}  // namespace specmoe
