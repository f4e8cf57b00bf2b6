#include "core/engine.h"

#include <algorithm>

#include "core/check_verdict.h"
#include "core/decide.h"
#include "core/engine_state.h"
#include "core/greedy_walk.h"

namespace specmoe {
void Engine::step(std::span<const std::unique_ptr<Sequence>> batch) {
  if (batch[0]->record->whole_steps) return whole_step(*batch[0]);
  StageTimes times;
  StageClock clock;
  draft(batch);
  clock.charge(times.draft_ns);
  score(batch);
  clock.charge(times.verify_ns);
  for (std::size_t i = 0; i < batch.size(); ++i) judge(*batch[i], static_cast<int>(i));
  clock.charge(times.judge_ns);
  for (std::size_t i = 0; i < batch.size(); ++i) commit(*batch[i], static_cast<int>(i));
  clock.charge(times.draft_ns);
  for (const auto& sequence : batch) {
    sequence->cache->keep(sequence->path);
    emit(*sequence);
  }
  workspace_->count_unique_experts(target_->info().experts);
  clock.charge(times.rest_ns);
  for (const auto& sequence : batch) record(*sequence, times, static_cast<int>(batch.size()));
}

void Engine::whole_step(Sequence& sequence) {
  StageTimes times;
  StageClock clock;
  whole_.step->run(sequence.draft.tree, sequence.verdict, workspace_->unique_experts);
  workspace_->pass_rows = sequence.draft.tree.size();
  clock.charge(times.verify_ns);  // the device does not tell its stages apart
  sequence.find_path();
  emit(sequence);
  clock.charge(times.rest_ns);
  record(sequence, times, 1);
}

void Engine::draft(std::span<const std::unique_ptr<Sequence>> batch) {
  workspace_->grow_requests.clear();
  for (const auto& sequence : batch) {
    const SamplingParams& sampling = sequence->request->sampling;
    sequence->uniforms = PhiloxUniforms(sampling.seed, sampling.sequence, sequence->record->steps.size());
    sequence->draft.reset(sequence->root, target_->info().vocab_size);
    if (drafter_ == nullptr) continue;
    sequence->draft.law = effective_law(*drafter_, *tree_, sampling);
    workspace_->grow_requests.push_back({sequence->draft_state.get(), &sequence->draft, &sampling, &sequence->changes,
                                         &sequence->uniforms, std::min(tree_->max_depth(), sequence->remaining - 1)});
  }
  if (drafter_ != nullptr) grow(workspace_->grow_requests, *drafter_, *tree_, workspace_->grow);
}

void Engine::score(std::span<const std::unique_ptr<Sequence>> batch) {
  workspace_->blocks.clear();
  workspace_->result.want_logits = false;
  for (const auto& sequence : batch) {
    workspace_->result.want_logits |= !sequence->request->sampling.greedy() || sequence->changes.any();
    const TokenTree& tree = sequence->draft.tree;
    workspace_->blocks.push_back({sequence->cache.get(), tree.tokens(), tree.parents(), LogitsWanted::kAll});
  }
  target_->forward(workspace_->blocks, workspace_->result);
}

void Engine::judge(Sequence& sequence, int block) {
  const SamplingParams& sampling = sequence.request->sampling;
  Draft<float>& draft = sequence.draft;
  sequence.target_rows.reset(workspace_->result, workspace_->result.row_begin[block], draft.tree, sampling,
                             sequence.changes);
  // At temperature 0 every lossless policy is the greedy walk, and without a draft there is nothing to accept.
  if (sampling.greedy() && lossless_) {
    greedy_walk(draft, sequence.target_rows, sequence.verdict);
  } else if (drafter_ != nullptr) {
    acceptance_->judge(draft, sequence.target_rows, sequence.uniforms, sequence.verdict);
    check_verdict(draft.tree, sequence.verdict, target_->info().vocab_size);
  } else {
    sequence.verdict.accepted.clear();
    sequence.verdict.next = draw_from_row(sequence.target_rows.row(TokenTree::kRoot), Taken{},
                                          sequence.uniforms.at({TokenTree::kRoot, Purpose::kNext, 0}));
  }
}

void Engine::commit(Sequence& sequence, int block) {
  sequence.find_path();
  if (drafter_ == nullptr) return;
  const HiddenRows hidden = workspace_->hidden_rows(block);
  drafter_->commit(*sequence.draft_state, sequence.draft.tree, sequence.verdict, hidden);
  tree_->observe(sequence.draft, static_cast<int>(sequence.verdict.accepted.size()));
}

void Engine::emit(Sequence& sequence) {
  RequestRecord& record = *sequence.record;
  const Request& request = *sequence.request;
  const std::vector<NodeId>& accepted = sequence.verdict.accepted;
  sequence.emitted_before = static_cast<std::int32_t>(record.tokens.size());
  for (std::size_t i = 0; i <= accepted.size() && sequence.running(); ++i) {
    const bool from_draft = i < accepted.size();
    const TokenId token = from_draft ? sequence.draft.tree.token(accepted[i]) : sequence.verdict.next;
    record.tokens.push_back(token);
    record.from_draft.push_back(from_draft);
    sequence.changes.add(token);
    sequence.root = token;
    --sequence.remaining;
    const bool stop_text = request.on_token && request.on_token(token, from_draft);
    const auto& stops = request.stop_tokens;
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
      record.finish = FinishReason::kStopToken;
    } else if (stop_text) {
      record.finish = FinishReason::kStopText;
    } else if (sequence.remaining == 0) {
      record.finish = sequence.context_bound ? FinishReason::kContextFull : FinishReason::kMaxTokens;
    }
  }
}

void Engine::record(Sequence& sequence, const StageTimes& times, int batch) {
  RequestRecord& record = *sequence.record;
  const TokenTree& tree = sequence.draft.tree;
  StepRecord step;
  step.drafted = tree.drafted();
  step.drafted_depth = tree.max_depth();
  step.emitted = static_cast<std::int32_t>(record.tokens.size()) - sequence.emitted_before;
  // What lies behind a stop counts as never judged.
  step.accepted = std::min(step.emitted, static_cast<std::int32_t>(sequence.verdict.accepted.size()));
  step.truncated = step.accepted + 1 - step.emitted;
  const int judged_nodes = step.accepted + 1 - step.truncated;  // path nodes whose children were judged
  for (int i = 0; i < judged_nodes; ++i) step.rejected += tree.child_count(sequence.path[i]);
  step.rejected -= step.accepted;
  step.unjudged = step.drafted - step.accepted - step.rejected;
  step.judged_depth = step.accepted + (step.truncated == 0 && !tree.is_leaf(sequence.path[step.accepted]) ? 1 : 0);
  step.pass_rows = workspace_->pass_rows;
  step.times = {times.draft_ns / batch, times.verify_ns / batch, times.judge_ns / batch, times.rest_ns / batch};
  record.steps.push_back(step);
  const auto& unique = workspace_->unique_experts;
  record.moe_layers = static_cast<int>(unique.size());
  record.unique_experts.insert(record.unique_experts.end(), unique.begin(), unique.end());
}

}  // namespace specmoe
