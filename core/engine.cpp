#include "core/engine.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <numeric>

#include "core/decide.h"
#include "core/greedy_walk.h"
#include "core/grow.h"
#include "core/logit_rows.h"

namespace specmoe {
namespace {

using Clock = std::chrono::steady_clock;

std::int64_t ns_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count();
}

/// Adds the time since it was made, or since the last call, to one stage after another.
class StageClock {
 public:
  void charge(std::int64_t& stage) {
    const Clock::time_point now = Clock::now();
    stage += ns_between(last_, now);
    last_ = now;
  }

 private:
  Clock::time_point last_ = Clock::now();
};

}  // namespace

/// One running request.
struct Engine::Sequence {
  const Request* request = nullptr;
  RequestRecord* record = nullptr;
  std::unique_ptr<KVCache> cache;
  std::unique_ptr<DraftState> draft_state;
  Draft<float> draft;
  PhiloxUniforms uniforms{0, 0, 0};
  LogitRows target_rows;
  Verdict verdict;
  TokenId root = 0;                 // last token of the text, not yet in the cache
  int remaining = 0;                // tokens that may still be emitted
  bool context_bound = false;       // `remaining` ends at the context, not at max_new_tokens
  std::vector<std::int32_t> path;   // staged rows kept: the root and the accepted nodes
  std::int32_t emitted_before = 0;  // tokens emitted in earlier steps

  bool running() const { return record->finish == FinishReason::kRunning; }
  void find_path() {
    path.assign(1, TokenTree::kRoot);
    path.insert(path.end(), verdict.accepted.begin(), verdict.accepted.end());
  }
};

/// Buffers of step(), reused.
struct Engine::Workspace {
  std::vector<GrowRequest> grow_requests;
  GrowWorkspace grow;
  std::vector<RowBlock> blocks;
  ForwardResult result;
  int pass_rows = 0;                         // of the target's pass
  std::vector<std::int32_t> unique_experts;  // [MoE layers]
  std::vector<std::uint8_t> seen;            // [experts]

  void count_unique_experts(int experts) {
    pass_rows = result.row_begin.back();
    unique_experts.assign(result.moe_layers, 0);
    if (result.moe_layers == 0) return;
    const std::size_t per_layer = result.experts.size() / result.moe_layers;
    for (int layer = 0; layer < result.moe_layers; ++layer) {
      seen.assign(experts, 0);
      for (std::size_t i = 0; i < per_layer; ++i) seen[result.experts[layer * per_layer + i]] = 1;
      unique_experts[layer] = std::accumulate(seen.begin(), seen.end(), 0);
    }
  }
};

// ---- the step -------------------------------------------------------------------------------------------------------

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
  for (const auto& sequence : batch) commit(*sequence);
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
    workspace_->grow_requests.push_back({sequence->draft_state.get(), &sequence->draft, &sampling, &sequence->uniforms,
                                         std::min(tree_->max_depth(), sequence->remaining - 1)});
  }
  if (drafter_ != nullptr) grow(workspace_->grow_requests, *drafter_, *tree_, workspace_->grow);
}

void Engine::score(std::span<const std::unique_ptr<Sequence>> batch) {
  workspace_->blocks.clear();
  workspace_->result.want_logits = false;
  for (const auto& sequence : batch) {
    workspace_->result.want_logits |= !sequence->request->sampling.greedy();  // a greedy row is a point on its argmax
    const TokenTree& tree = sequence->draft.tree;
    workspace_->blocks.push_back({sequence->cache.get(), tree.tokens(), tree.parents(), LogitsWanted::kAll});
  }
  target_->forward(workspace_->blocks, workspace_->result);
}

void Engine::judge(Sequence& sequence, int block) {
  const SamplingParams& sampling = sequence.request->sampling;
  Draft<float>& draft = sequence.draft;
  sequence.target_rows.reset(workspace_->result, workspace_->result.row_begin[block], draft.tree.size(), sampling);
  // At temperature 0 every lossless policy is the greedy walk, and without a draft there is nothing to accept.
  if (sampling.greedy() && lossless_) {
    greedy_walk(draft, sequence.target_rows, sequence.verdict);
  } else if (drafter_ != nullptr) {
    acceptance_->judge(draft, sequence.target_rows, sequence.uniforms, sequence.verdict);
  } else {
    sequence.verdict.accepted.clear();
    sequence.verdict.next = draw_from_row(sequence.target_rows.row(TokenTree::kRoot), Taken{},
                                          sequence.uniforms.at({TokenTree::kRoot, Purpose::kNext, 0}));
  }
}

void Engine::commit(Sequence& sequence) {
  sequence.find_path();
  if (drafter_ == nullptr) return;
  drafter_->commit(*sequence.draft_state, sequence.draft.tree, sequence.verdict);
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

// ---- around the step ------------------------------------------------------------------------------------------------

Engine::Engine(std::shared_ptr<LanguageModel> target, const EngineSpec& spec, const ModelLoader& load_model,
               EngineParts parts)
    : target_(std::move(target)),
      drafter_(std::move(parts.drafter)),
      tree_(std::move(parts.tree)),
      acceptance_(std::move(parts.acceptance)),
      spec_(spec),
      workspace_(std::make_unique<Workspace>()) {
  if (drafter_ == nullptr && spec.drafter.empty()) {
    SPECMOE_CHECK(spec.tree.empty() && spec.acceptance.empty() && tree_ == nullptr && acceptance_ == nullptr,
                  "a tree or an acceptance policy without a drafter has nothing to work on; name a drafter");
    whole_ = offer_whole_step({.target = target_, .loop = spec_.device_loop});
    return;
  }
  if (drafter_ == nullptr) drafter_ = drafters().create(spec.drafter, spec_.drafter);
  if (tree_ == nullptr) tree_ = tree_policies().create(spec.tree.empty() ? "chain" : spec.tree, spec_.tree);
  if (acceptance_ == nullptr) {
    const std::string by_shape = tree_->branches() ? "naive" : "token";
    acceptance_ = acceptance_policies().create(spec.acceptance.empty() ? by_shape : spec.acceptance, spec_.acceptance);
  }
  check_parts();
  drafter_->attach({target_, load_model});
  whole_ = offer_whole_step({target_, drafter_.get(), tree_.get(), acceptance_.get(), lossless_, spec_.device_loop});
}

Engine::~Engine() = default;

void Engine::check_parts() {
  SPECMOE_CHECK(!tree_->branches() || acceptance_->judges_trees(),
                "this acceptance policy judges chains only, and the ", "tree '", spec_.tree,
                "' branches; use a chain, or a policy that judges trees");
  const DraftLaw law = effective_law(*drafter_, *tree_, SamplingParams{.temperature = 1.0});
  lossless_ = acceptance_->lossless_laws().contains(law);
  SPECMOE_CHECK(lossless_ || spec_.allow_lossy, "acceptance '", spec_.acceptance, "' is not lossless for drafts drawn ",
                law_name(law), " (lossless for: ", acceptance_->lossless_laws().to_string(),
                "); choose another policy or tree, or allow it with --allow-lossy (allow_lossy=True)");
}

void tell_repeats_apart(std::span<Request> requests) {
  std::map<std::pair<std::vector<TokenId>, std::uint64_t>, std::uint64_t> seen;
  for (Request& request : requests) {
    request.sampling.sequence = seen[{request.prompt, request.sampling.seed}]++;
  }
}

void check_prompt(const Request& request, const ModelInfo& model) {
  SPECMOE_CHECK(!request.prompt.empty(), "request '", request.id, "': the prompt is empty; it needs one token or more");
  SPECMOE_CHECK(static_cast<int>(request.prompt.size()) < model.max_positions, "request '", request.id,
                "': the prompt has ", request.prompt.size(), " tokens, the context of ", model.name, " is ",
                model.max_positions, "; shorten it");
  for (TokenId token : request.prompt) {
    SPECMOE_CHECK(token >= 0 && token < model.vocab_size, "request '", request.id, "': token id ", token,
                  " is outside the vocabulary of ", model.vocab_size);
  }
}

void Engine::validate(const Request& request) const {
  check_prompt(request, target_->info());
  SPECMOE_CHECK(request.max_new_tokens >= 1, "max_new_tokens must be at least 1, got ", request.max_new_tokens);
  request.sampling.validate();
  SPECMOE_CHECK(request.sampling.greedy() || acceptance_ == nullptr || acceptance_->samples(), "acceptance '",
                spec_.acceptance, "' only follows the argmax; use temperature 0, or a policy that samples");
}

std::string Engine::step_leader() const {
  if (whole_.step != nullptr) return concat("whole steps on ", target_->info().device);
  return whole_.why_not.empty() ? "" : concat("steps led by the host: ", whole_.why_not);
}

std::unique_ptr<Engine::Sequence> Engine::start(const Request& request, RequestRecord& record, int batch) const {
  const Clock::time_point begin = Clock::now();
  auto sequence = std::make_unique<Sequence>();
  sequence->request = &request;
  sequence->record = &record;
  record.id = request.id;
  record.prompt = request.prompt;
  const int prompt = static_cast<int>(request.prompt.size());
  const int room = target_->info().max_positions - prompt;
  sequence->remaining = std::min(request.max_new_tokens, room);
  sequence->context_bound = room < request.max_new_tokens;
  record.tokens.reserve(sequence->remaining);
  record.from_draft.reserve(sequence->remaining);
  record.steps.reserve(sequence->remaining);
  record.unique_experts.reserve(static_cast<std::size_t>(sequence->remaining) * target_->info().layers);
  const int text = prompt + sequence->remaining;
  sequence->root = request.prompt.back();
  record.whole_steps = batch == 1 && whole_.step != nullptr && whole_.step->takes(text);
  if (record.whole_steps) {
    whole_.step->open({request.prompt, request.sampling, sequence->remaining, request.stop_tokens});
    record.prefill_ns = ns_between(begin, Clock::now());
    return sequence;
  }
  sequence->cache = target_->new_cache(text + (tree_ != nullptr ? tree_->max_nodes() : 1), text);
  prefill(*target_, *sequence->cache, std::span(request.prompt).first(prompt - 1));
  if (drafter_ != nullptr) sequence->draft_state = drafter_->open(request.prompt, text + tree_->max_grown_nodes());
  record.prefill_ns = ns_between(begin, Clock::now());
  return sequence;
}

std::vector<RequestRecord> Engine::generate(std::span<const Request> requests, int batch,
                                            const std::function<void()>& poll) {
  SPECMOE_CHECK(batch >= 1, "batch must be at least 1, got ", batch);
  for (const Request& request : requests) validate(request);
  std::vector<RequestRecord> records(requests.size());
  std::vector<std::unique_ptr<Sequence>> active;
  std::size_t next = 0;
  while (true) {
    while (next < requests.size() && active.size() < static_cast<std::size_t>(batch)) {
      active.push_back(start(requests[next], records[next], batch));
      ++next;
    }
    if (active.empty()) return records;
    if (poll) poll();
    step(active);
    std::erase_if(active, [](const auto& sequence) { return !sequence->running(); });
  }
}

}  // namespace specmoe
