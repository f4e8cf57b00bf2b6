#include <algorithm>
#include <map>

#include "core/engine_state.h"

namespace specmoe {
namespace {

/// What a topology announces: caches and buffers are made by it.
void check_size(const std::string& tree, const char* name, int size, int least) {
  constexpr int kMost = 1 << 24;
  SPECMOE_CHECK(size >= least && size <= kMost, "tree '", tree, "': ", name, " must be ", least, " to ", kMost,
                ", got ", size);
}

}  // namespace

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
  workspace_->result.taps = drafter_->taps();
  workspace_->tapped_width = static_cast<std::int64_t>(workspace_->result.taps.size()) * target_->info().hidden_size;
  whole_ = offer_whole_step(
      {target_, drafter_.get(), tree_.get(), acceptance_.get(), lossless_, spec_.device_loop, spec_.device_switch});
}

Engine::~Engine() = default;

void Engine::check_parts() {
  check_size(spec_.tree, "max_nodes", tree_->max_nodes(), 1);
  check_size(spec_.tree, "max_grown_nodes", tree_->max_grown_nodes(), 1);
  check_size(spec_.tree, "max_depth", tree_->max_depth(), 0);
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

std::string Engine::step_leader(const SamplingParams& sampling) const {
  if (whole_.step != nullptr && sampling.penalises()) return "steps led by the host: penalties are for the host alone";
  if (whole_.step != nullptr) return concat("whole steps on ", target_->info().device);
  return whole_.why_not.empty() ? "" : concat("steps led by the host: ", whole_.why_not);
}

std::unique_ptr<Engine::Sequence> Engine::begin(const Request& request, RequestRecord& record) const {
  auto sequence = std::make_unique<Sequence>();
  sequence->request = &request;
  sequence->record = &record;
  record.id = request.id;
  record.prompt = request.prompt;
  const int prompt = static_cast<int>(request.prompt.size());
  const int room = target_->info().max_positions - prompt;
  sequence->remaining = std::min(request.max_new_tokens, room);
  sequence->context_bound = room < request.max_new_tokens;
  sequence->longest = prompt + sequence->remaining;
  record.tokens.reserve(sequence->remaining);
  record.from_draft.reserve(sequence->remaining);
  record.steps.reserve(sequence->remaining);
  sequence->root = request.prompt.back();
  sequence->changes.reset(target_->info().vocab_size, sequence->longest + (tree_ != nullptr ? tree_->max_depth() : 0),
                          request.prompt, request.sampling, request.logits_processor);
  return sequence;
}

void Engine::open_drafter(Sequence& sequence, std::span<const float> tapped) const {
  if (drafter_ == nullptr) return;
  const auto deepest = static_cast<std::size_t>(tree_->max_depth());  // which may first come late in a text
  sequence.verdict.accepted.reserve(deepest);
  sequence.path.reserve(deepest + 1);
  sequence.draft_state = drafter_->open(sequence.request->prompt, workspace_->hidden_rows(tapped),
                                        sequence.longest + tree_->max_grown_nodes());
}

std::unique_ptr<Engine::Sequence> Engine::start(const Request& request, RequestRecord& record, int batch,
                                                const std::function<void()>& poll) const {
  const Clock::time_point started = Clock::now();
  std::unique_ptr<Sequence> sequence = begin(request, record);
  record.unique_experts.reserve(static_cast<std::size_t>(sequence->remaining) * target_->info().layers);
  const int longest = sequence->longest;
  record.whole_steps = batch == 1 && whole_.step != nullptr && !sequence->changes.any() && whole_.step->takes(longest);
  if (record.whole_steps) {
    whole_.step->open({request.prompt, request.sampling, sequence->remaining, request.stop_tokens});
  } else {
    sequence->cache = target_->new_cache(longest + (tree_ != nullptr ? tree_->max_nodes() : 1), longest);
    const std::span<const TokenId> before_root = std::span(request.prompt).first(request.prompt.size() - 1);
    open_drafter(*sequence, prefill(*target_, *sequence->cache, before_root, workspace_->result.taps, {}, poll));
  }
  record.prefill_ns = ns_between(started, Clock::now());
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
      if (poll && !active.empty()) poll();
      active.push_back(start(requests[next], records[next], batch, poll));
      ++next;
    }
    if (active.empty()) return records;
    if (poll) poll();
    step(active);
    std::erase_if(active, [](const auto& sequence) { return !sequence->running(); });
  }
}

}  // namespace specmoe
