#pragma once

#include <map>
#include <memory>
#include <vector>

#include "core/step/model_pass.h"
#include "core/whole_step.h"
#include "tree/grow_tree.h"

namespace specmoe::cuda {

/// Whole steps on a CUDA device: one recorded graph per length of text, from the root to the emitted tokens. Nothing is
/// uploaded in between: the text, lengths, positions and uniforms lie on the device and move on there.
class DeviceStep final : public WholeStep {
 public:
  /// Why these parts have no whole steps; empty when they have.
  static std::string why_not(const WholeStepParts& parts);
  explicit DeviceStep(const WholeStepParts& parts);

  bool takes(int text) const override;
  void open(const WholeStepRequest& request) override;
  void run(TokenTree& tree, Verdict& verdict, std::vector<std::int32_t>& unique_experts) override;

 private:
  /// What a level takes at most.
  struct Level {
    int asked = 0;      // frontier nodes
    int children = 0;   // of each
    int first_row = 0;  // of the draft's rows
  };

  void plan_levels();
  void open_texts(const WholeStepRequest& request);
  void choose_law(const SamplingParams& sampling);
  void queue(int longest, kernels::cuda::LoopFlag loop);
  void queue_drafting(const Level& level, int index, int longest);
  void queue_judging(int longest);
  void launch();
  OutcomeRoom::Head take_outcome(TokenTree& tree, Verdict& verdict, std::vector<std::int32_t>& unique_experts);

  WholeStepParts parts_;
  LevelPlan plan_;
  DraftRecipe recipe_;
  std::vector<Level> levels_;
  int draft_row_count_ = 0;
  int grown_ = 1;  // most nodes before pruning
  int vocab_ = 0;
  int threads_ = 0;

  kernels::cuda::Stream stream_;
  std::unique_ptr<ModelPass> target_, drafter_;  // drafter_ null: no model drafts
  std::unique_ptr<DeviceDraftMemory> draft_;
  kernels::cuda::DeviceArray<float> draft_probs_, target_probs_;
  kernels::cuda::DeviceArray<StepState> state_;
  kernels::cuda::DeviceArray<TokenId> text_, stops_;
  kernels::cuda::DeviceArray<VerifyCase> judged_;
  kernels::cuda::DeviceArray<DeviceVerdict> verdict_;
  kernels::cuda::HostArray<std::int32_t> outcomes_;
  StepMemory memory_;

  // Of the sequence.
  SamplingParams sampling_;
  DraftLaw law_ = DraftLaw::kDeterministic;
  bool rows_drafted_ = false;  // the drafter's rows are normalised; else their argmax suffices
  DeviceJudge judge_;
  int length_ = 0;  // of the text, as far as the host has read
  int most_text_ = 0;
  int next_outcome_ = 0;                        // of the last launch; 0: all have been read
  std::map<int, kernels::cuda::Graph> graphs_;  // by chunks of the longest text
};

}  // namespace specmoe::cuda
