#include "core/step/device_step.h"

#include <algorithm>

#include "core/grow.h"
#include "kernels/check.h"

namespace specmoe::cuda {

using kernels::Rows;
using kernels::cuda::ChoiceFlag;
using kernels::cuda::DeviceArray;
using kernels::cuda::LoopFlag;
using kernels::cuda::RowCount;
using nn::cuda::DecodeStep;
using nn::cuda::DeviceTransformer;

namespace {

constexpr int kLoopSteps = 32;  // of one launch, when steps loop on the device

int device_of(const LanguageModel& model) {
  const auto* transformer = dynamic_cast<const DeviceTransformer*>(&model);
  return transformer == nullptr ? -1 : transformer->device();
}

std::string why_not_drafted(const WholeStepParts& parts) {
  const auto recipe = parts.drafter->recipe();
  if (!recipe) return "no device leads this drafter";
  if (recipe->model != nullptr && device_of(*recipe->model) != device_of(*parts.target)) {
    return "the drafter's model is not on the target's device";
  }
  if (recipe->model == nullptr && recipe->ngram.max_n > kMostNgram) return "ngram's max_n is more than a device has";
  const auto plan = parts.tree->level_plan();
  if (!plan) return "the tree's shape is not told level by level";
  if (parts.tree->max_nodes() > kMostVerifyNodes || parts.tree->max_grown_nodes() > kMostGrownNodes ||
      *std::max_element(plan->widths.begin(), plan->widths.end()) > kMostProposed) {
    return "the tree is larger than a device judges";
  }
  return "";
}

}  // namespace

std::string DeviceStep::why_not(const WholeStepParts& parts) {
  if (device_of(*parts.target) < 0) return "the target is no model of the device's own";
  if (parts.drafter == nullptr) return "";
  if (!parts.acceptance->on_device(DraftLaw::kDeterministic)) return "the acceptance policy judges on the CPU alone";
  return why_not_drafted(parts);
}

DeviceStep::DeviceStep(const WholeStepParts& parts)
    : parts_(parts),
      vocab_(parts.target->info().vocab_size),
      threads_(verify_threads(vocab_)),
      stream_(device_of(*parts.target)) {
  if (parts_.drafter != nullptr) {
    plan_ = *parts_.tree->level_plan();
    recipe_ = *parts_.drafter->recipe();
  }
  plan_levels();
}

/// How many nodes each level may have, and what the memory of all of them takes.
void DeviceStep::plan_levels() {
  int frontier = 1;
  for (std::size_t i = 0; i < plan_.widths.size(); ++i) {
    levels_.push_back({frontier, plan_.widths[i], draft_row_count_});
    draft_row_count_ += frontier;
    const int added = frontier * plan_.widths[i];
    grown_ += added;
    frontier = plan_.frontier > 0 ? std::min(added, plan_.frontier) : added;
  }
  DeviceDraft::Room most = {grown_, 1, 1};
  for (const Level& level : levels_) {
    most.frontier = std::max(most.frontier, level.asked);
    most.children = std::max(most.children, level.children);
  }
  const int device = stream_.device();
  const int depth = static_cast<int>(levels_.size());
  const int nodes = plan_.kept > 0 ? std::min(grown_, plan_.kept + 1) : grown_;
  draft_ = std::make_unique<DeviceDraftMemory>(most, device);
  target_ = std::make_unique<ModelPass>(parts_.target, nodes, nodes, depth + 1, stream_);
  // A drafter may have to catch up with the last level's node and the token behind it.
  if (recipe_.model != nullptr) {
    drafter_ = std::make_unique<ModelPass>(recipe_.model, std::max(2, most.frontier), grown_ + 1, depth + 2, stream_);
  }
  state_ = DeviceArray<StepState>(1, device);
  judged_ = DeviceArray<VerifyCase>(1, device);
  verdict_ = DeviceArray<DeviceVerdict>(1, device);
  const int layers = static_cast<int>(target_->spec().layers.size());
  memory_.room = {nodes, depth + 1, layers, parts_.loop ? kLoopSteps : 1};
  outcomes_ = kernels::cuda::HostArray<std::int32_t>(static_cast<std::size_t>(memory_.room.integers()) *
                                                     static_cast<std::size_t>(memory_.room.count));
  memory_.state = state_.data();
  memory_.draft = draft_->draft();
  memory_.most_depth = depth;
  memory_.judged = judged_.data();
  memory_.verdict = verdict_.data();
  memory_.outcomes = outcomes_.data();
}

bool DeviceStep::takes(int text) const {
  return recipe_.model == nullptr || text <= recipe_.model->info().max_positions;
}

// ---- a sequence -----------------------------------------------------------------------------------------------------

void DeviceStep::open(const WholeStepRequest& request) {
  open_texts(request);
  choose_law(request.sampling);
  StepState state;
  state.uniforms = {request.sampling.seed, request.sampling.sequence, 0};
  state.length = length_;
  state.remaining = request.remaining;
  VerifyCase judged;
  judged.tokens = memory_.draft.tokens;
  judged.parents = memory_.draft.parents;
  judged.row_of = memory_.draft.row_of;
  judged.draft_rows = {draft_probs_.data(), draft_row_count_, vocab_, vocab_};
  if (!request.sampling.greedy()) judged.target = {target_probs_.data(), memory_.room.nodes, vocab_, vocab_};
  judged.argmax = target_->step().argmax();
  judged.without_replacement = judge_.without_replacement;
  stream_.copy(state_.data(), &state, sizeof(state));
  stream_.copy(judged_.data(), &judged, sizeof(judged));
  stream_.synchronize();
  next_outcome_ = 0;
}

/// The caches, the text and its stop tokens.
void DeviceStep::open_texts(const WholeStepRequest& request) {
  length_ = static_cast<int>(request.prompt.size());
  most_text_ = length_ + request.remaining;
  const auto committed = request.prompt.first(request.prompt.size() - 1);
  bool moved = target_->open(committed, most_text_, stream_);
  if (drafter_ != nullptr && drafter_->open(committed, most_text_, stream_)) moved = true;
  const std::size_t room = static_cast<std::size_t>(most_text_ + memory_.room.path);
  if (text_.size() < room) {
    text_ = DeviceArray<TokenId>(2 * room, stream_.device());
    moved = true;
  }
  const std::size_t stops = request.stop_tokens.size();
  if (stops_.size() < stops) stops_ = DeviceArray<TokenId>(stops, stream_.device());
  if (memory_.stop_count != static_cast<int>(stops) || memory_.stops != stops_.data()) moved = true;
  if (moved) graphs_.clear();
  memory_.text = text_.data();
  memory_.stops = stops_.data();
  memory_.stop_count = static_cast<int>(stops);
  memory_.target_rows = target_->rows();
  if (drafter_ != nullptr) memory_.draft_rows = drafter_->rows();
  memory_.active_experts = target_->step().active_experts();
  stream_.copy(text_.data(), request.prompt.data(), request.prompt.size() * sizeof(TokenId));
  stream_.copy(stops_.data(), request.stop_tokens.data(), stops * sizeof(TokenId));
  stream_.synchronize();
}

/// What of the recorded work depends on how the sequence samples.
void DeviceStep::choose_law(const SamplingParams& sampling) {
  if (sampling.rule() != sampling_.rule()) graphs_.clear();
  sampling_ = sampling;
  judge_ = {DeviceRule::kNaive};  // without a draft: one token from the root's row
  rows_drafted_ = false;
  if (parts_.drafter != nullptr) {
    law_ = effective_law(*parts_.drafter, *parts_.tree, sampling);
    judge_ = *parts_.acceptance->on_device(law_);
    rows_drafted_ = drafter_ != nullptr && !(sampling.greedy() && parts_.tree->argmax_suffices());
  }
  // As in the engine: at temperature 0 every lossless policy is the greedy walk.
  if (sampling.greedy() && parts_.lossless) judge_ = {DeviceRule::kGreedy};
  const auto floats = [this](int rows) { return static_cast<std::size_t>(rows) * static_cast<std::size_t>(vocab_); };
  if (rows_drafted_ && draft_probs_.size() == 0) {
    draft_probs_ = DeviceArray<float>(floats(draft_row_count_), stream_.device());
  }
  if (!sampling.greedy() && target_probs_.size() == 0) {
    target_probs_ = DeviceArray<float>(floats(memory_.room.nodes), stream_.device());
  }
}

// ---- the step -------------------------------------------------------------------------------------------------------

void DeviceStep::queue(int longest, LoopFlag loop) {
  begin_step(memory_, stream_);
  for (std::size_t i = 0; i < levels_.size(); ++i) queue_drafting(levels_[i], static_cast<int>(i), longest);
  if (plan_.kept > 0 && law_ == DraftLaw::kDeterministic) keep_best_nodes(memory_.draft, plan_.kept, stream_);
  queue_judging(longest);
  settle_step(memory_, loop, stream_);
  target_->queue_keep(stream_);
  if (drafter_ != nullptr) drafter_->queue_keep(stream_);
}

/// One level: the drafter's pass over the frontier, the children that come of it, the next frontier.
void DeviceStep::queue_drafting(const Level& level, int index, int longest) {
  const bool root = index == 0;
  const DeviceDraft& draft = memory_.draft;
  Rows<float> rows;
  if (drafter_ != nullptr) {
    const int pass_rows = root ? 2 : level.asked;
    stage_frontier(memory_, root, DecodeStep::tile_count(pass_rows), stream_);
    drafter_->step().queue_written(pass_rows, level.asked, longest);
  }
  if (rows_drafted_) {
    // A greedy draft still ranks tokens by the unscaled distribution.
    const SamplingParams sampling = sampling_.greedy() ? SamplingParams{.temperature = 1.0} : sampling_;
    rows = {draft_probs_.data(), draft_row_count_, vocab_, vocab_};
    const Rows<float> own = {rows.row(level.first_row), level.asked, vocab_, vocab_};
    kernels::cuda::sampling_probs(drafter_->step().logits(), {level.asked, drafter_->rows().counts + 1},
                                  sampling.rule(), own, stream_);
    propose_by_law(draft, law_, rows, level.first_row, level.children, stream_, threads_);
  } else if (drafter_ != nullptr) {
    propose_argmax(draft, drafter_->step().argmax(), stream_);
  } else {
    propose_ngram(draft, recipe_.ngram, {memory_.text, &memory_.state->length}, level.children, stream_, threads_);
  }
  const bool last = static_cast<std::size_t>(index) + 1 == levels_.size();
  const int next = last ? 0 : levels_[static_cast<std::size_t>(index) + 1].asked;
  grow_level(draft, {index + 1, next, plan_.frontier > 0, plan_.frontier > 0 || plan_.kept > 0, rows, level.first_row},
             stream_);
}

/// The target's pass over the tree, and the verdict on it.
void DeviceStep::queue_judging(int longest) {
  const int nodes = memory_.room.nodes;
  const ChoiceFlag size = parts_.choose ? kernels::cuda::new_choice(stream_) : ChoiceFlag{};
  stage_tree(memory_, DecodeStep::tile_count(nodes), size, stream_);
  const auto pass = [&](int rows) { target_->step().queue_written(rows, rows, longest); };
  if (parts_.choose) {
    kernels::cuda::queue_choice(stream_, size, pass_size(nodes) + 1, [&](int i) { pass(std::min(nodes, 1 << i)); });
  } else {
    pass(nodes);
  }
  if (!sampling_.greedy()) {
    const Rows<float> probs = {target_probs_.data(), nodes, vocab_, vocab_};
    kernels::cuda::sampling_probs(target_->step().logits(), {nodes, target_->rows().counts + 1}, sampling_.rule(),
                                  probs, stream_);
  }
  verify_tree(judge_.rule, judged_.data(), 1, vocab_, verdict_.data(), target_->rows().path, memory_.room.path, stream_,
              threads_);
}

void DeviceStep::launch() {
  const int steps = memory_.room.count;
  const int longest = std::min(length_ + steps * memory_.room.path, most_text_ + memory_.room.path);
  kernels::cuda::Graph& graph = graphs_[DecodeStep::chunk_count(longest)];
  if (!graph.recorded()) {
    if (parts_.loop) {
      graph.record_loop(stream_, [&](LoopFlag loop) { queue(longest, loop); });
    } else {
      graph.record(stream_, [&] { queue(longest, {}); });
    }
  }
  graph.launch(stream_);
  stream_.synchronize();
}

void DeviceStep::run(TokenTree& tree, Verdict& verdict, std::vector<std::int32_t>& unique_experts) {
  if (next_outcome_ == 0) launch();
  const OutcomeRoom::Head head = take_outcome(tree, verdict, unique_experts);
  next_outcome_ = head.last != 0 ? 0 : next_outcome_ + 1;
  length_ += head.accepted + 1;
  SPECMOE_CHECK(head.broken == 0, "logits of node ", static_cast<NodeId>(head.broken) - 1,
                " are NaN; check the drafter's weights");
  check_verdict({head.next, head.accepted, head.problem, head.problem_node});
}

OutcomeRoom::Head DeviceStep::take_outcome(TokenTree& tree, Verdict& verdict,
                                           std::vector<std::int32_t>& unique_experts) {
  const Outcome outcome = Outcome::at(outcomes_.data(), memory_.room, memory_.room.integers(), next_outcome_);
  const OutcomeRoom::Head head = *outcome.head;
  tree.reset(outcome.tokens[0]);
  for (NodeId n = 1; n < head.nodes; ++n) tree.add(outcome.parents[n], outcome.tokens[n]);
  verdict.accepted.assign(outcome.path + 1, outcome.path + 1 + head.accepted);
  verdict.next = head.next;
  unique_experts.clear();
  const auto& layers = target_->spec().layers;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (layers[i].ffn.router) unique_experts.push_back(outcome.active[i]);
  }
  return head;
}

namespace {

WholeStepOffer make(const WholeStepParts& parts) {
  const std::string why_not = DeviceStep::why_not(parts);
  if (!why_not.empty()) return {nullptr, why_not};
  return {std::make_unique<DeviceStep>(parts), ""};
}

const WholeStepRegistration registration(make);

}  // namespace
}  // namespace specmoe::cuda
