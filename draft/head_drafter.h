#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/drafter.h"

namespace specmoe {

/// A drafter that is a small head on the target's own hidden rows. In a draft, where the target has not been yet, the
/// head goes on from what it handed on itself. What it computed from that is dropped after the step, and computed again
/// from the target's rows, so that a draft depends on the text alone.
class HeadDrafter : public Drafter {
 public:
  bool deterministic() const override { return false; }
  std::vector<DraftCheckpoint> checkpoints() const override { return {{path_, DraftCheckpoint::Kind::kDraftHead}}; }
  void attach(const DraftContext& context) override;
  std::vector<int> taps() const override { return head_.taps; }
  std::unique_ptr<DraftState> open(std::span<const TokenId> prompt, HiddenRows hidden, int capacity) override;
  void propose(std::span<const ProposeRequest> requests) override;
  void commit(DraftState& state, const TokenTree& tree, const Verdict& verdict, HiddenRows hidden) override;

 protected:
  /// name  of the drafter, for messages
  /// path  folder of the head
  HeadDrafter(std::string name, std::string path) : name_(std::move(name)), path_(std::move(path)) {}

 private:
  struct State;

  std::size_t width() const { return static_cast<std::size_t>(head_.model->info().hidden_size); }
  static int text_length(const State& state);
  void append(State& state, TokenId token, HiddenRows hidden, std::int64_t before) const;
  bool stage(State& state, const ProposeRequest& request) const;
  void stage_text(State& state) const;

  const std::string name_;
  const std::string path_;
  DraftHead head_;
  ForwardResult result_;
  std::vector<RowBlock> blocks_;
  std::vector<const ProposeRequest*> asked_;
  std::vector<std::int32_t> scratch_;
};

}  // namespace specmoe
