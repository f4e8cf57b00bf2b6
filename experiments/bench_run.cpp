#include "experiments/bench_run.h"

#include <algorithm>
#include <utility>

#include "experiments/chat.h"
#include "experiments/interrupt.h"
#include "kernels/check.h"

namespace specmoe::cli {
namespace {

constexpr int kWarmUpTokens = 32;

/// Plain decoding or one cell, and what it did.
struct Method {
  CellPlan plan;
  std::shared_ptr<Engine> engine;
  EngineSpec spec;  // canonical
  std::string failure;
  Counts counts{};
  Counts group{};                      // of the group being run
  std::vector<double> group_rates{};   // tokens/s, all runs of a group together
  std::vector<RequestRecord> texts{};  // first run
  std::string difference{};

  bool runs() const { return failure.empty(); }
};

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

/// Where two texts of one question part; empty when they do not.
std::string first_difference(const Models& models, const RequestRecord& wanted, const RequestRecord& got) {
  const auto [a, b] = std::mismatch(wanted.tokens.begin(), wanted.tokens.end(), got.tokens.begin(), got.tokens.end());
  if (a == wanted.tokens.end() && b == got.tokens.end()) return "";
  const auto shown = [&](auto at, auto end) {
    return at == end ? std::string("the end") : concat(*at, " (\"", models.tokenizer->token_text(*at), "\")");
  };
  return concat("question ", wanted.id, ", token ", a - wanted.tokens.begin(), ": ", shown(b, got.tokens.end()),
                " instead of ", shown(a, wanted.tokens.end()));
}

class BlockRun {
 public:
  BlockRun(const RunOptions& options, const Block& block, Engines& engines, BenchHost& host)
      : options_(options), block_(block), models_(engines.models()), host_(host), prompts_(block.prompts) {
    const Engines::Entry& plain = engines.get({});
    methods_.push_back({.plan = {}, .engine = plain.engine, .spec = plain.spec, .failure = plain.failure});
    for (const CellPlan& plan : block.cells) {
      const Engines::Entry& entry = engines.get(plan.spec);
      methods_.push_back({.plan = plan, .engine = entry.engine, .spec = entry.spec, .failure = entry.failure});
    }
    if (options.all_turns) guarded(methods_[0], [this] { add_later_turns(); });
    requests_ = seeded_requests(prompts_);
  }

  std::vector<BenchCell> run() {
    warm_up();
    const int total = static_cast<int>(requests_.size());
    for (int first = 0; first < total; first += block_.batch) run_group(first, std::min(block_.batch, total - first));
    std::vector<BenchCell> cells;
    for (std::size_t m = 1; m < methods_.size(); ++m) cells.push_back(cell(methods_[m]));
    return cells;
  }

 private:
  const Method& plain() const { return methods_[0]; }

  /// Runs a part of one method's work. Signals and the caller's poll end everything; what else is thrown ends the
  /// method, and with plain decoding every method.
  template <class Work>
  void guarded(Method& method, Work work) {
    if (!method.runs() || !plain().runs()) return;
    try {
      work();
    } catch (const std::exception& error) {
      method.failure = one_line(error.what());
    }
  }

  /// Prompt i of the file has seed + i, in every turn.
  std::vector<Request> seeded_requests(const std::vector<Prompt>& prompts) const {
    std::vector<Request> requests = make_requests(options_, prompts, models_, block_.temperature);
    for (std::size_t i = 0; i < requests.size(); ++i) requests[i].sampling.seed += prompts[i].number;
    return requests;
  }

  /// The later turns of every question, each after what plain decoding answers to the earlier ones: all methods are
  /// asked the same.
  void add_later_turns() {
    const auto is_over = [](const Prompt& prompt) { return prompt.answers.size() + 1 >= prompt.turns.size(); };
    std::vector<Prompt> turn = prompts_;
    for (std::erase_if(turn, is_over); !turn.empty(); std::erase_if(turn, is_over)) {
      std::vector<Request> requests = seeded_requests(turn);
      attach_stops(requests);
      const std::vector<RequestRecord> records = plain().engine->generate(requests, block_.batch, host_.poll);
      for (std::size_t i = 0; i < turn.size(); ++i) {
        turn[i].answers.push_back(text_of(models_, options_.stops, records[i].tokens));
        turn[i].rendered = false;
      }
      render_chat(options_.target, turn);
      prompts_.insert(prompts_.end(), turn.begin(), turn.end());
    }
  }

  /// One short run of every method, which also finds out whether it can run at this temperature at all.
  void warm_up() {
    const std::size_t batch = std::min<std::size_t>(block_.batch, requests_.size());
    std::vector<Request> few(requests_.begin(), requests_.begin() + static_cast<std::ptrdiff_t>(batch));
    for (Request& request : few) request.max_new_tokens = std::min(request.max_new_tokens, kWarmUpTokens);
    for (Method& method : methods_) {
      guarded(method, [&] { method.engine->generate(few, block_.batch, host_.poll); });
    }
  }

  void run_group(int first, int count) {
    for (Method& method : methods_) method.group = {};
    for (int round = 0; round < options_.repeat; ++round) {
      for (std::size_t m = 0; m < methods_.size(); ++m) run_once(methods_[m], first, count, 2 * round);
      for (std::size_t m = methods_.size(); m-- > 0;) run_once(methods_[m], first, count, 2 * round + 1);
    }
    for (Method& method : methods_) {
      if (!method.runs()) continue;
      method.counts.add(method.group);
      method.group_rates.push_back(derive(method.group, 0).tokens_per_s);
    }
  }

  void run_once(Method& method, int first, int count, int run) {
    host_.progress.step(host_.work_done, host_.work_total, what_runs(method));
    host_.work_done += count;
    guarded(method, [&] {
      std::vector<Request> group(requests_.begin() + first, requests_.begin() + first + count);
      attach_stops(group);
      std::vector<RequestRecord> records = method.engine->generate(group, count, host_.poll);
      for (int i = 0; i < count; ++i) {
        method.group.add(records[i]);
        compare(method, records[i], first + i, run);
        write(method, records[i], first + i, run);
        if (run == 0) method.texts.push_back(std::move(records[i]));
      }
    });
  }

  std::string what_runs(const Method& method) const {
    const std::string name = method.spec.drafter.empty() ? "plain" : method.spec.tree + " " + method.spec.acceptance;
    return concat(block_.dtype, ", ", block_.category, ", batch ", block_.batch, ", temperature ", block_.temperature,
                  ", ", name);
  }

  void attach_stops(std::vector<Request>& group) const {
    if (options_.stops.empty()) return;
    for (Request& request : group) {
      auto stop = std::make_shared<nn::TextStop>(models_.tokenizer, options_.stops);
      request.on_token = [stop](TokenId token, bool) { return stop->push(token); };
    }
  }

  /// A greedy text must be plain decoding's, and any text the same in every run.
  void compare(Method& method, const RequestRecord& record, int prompt, int run) const {
    const Method& reference = block_.temperature == 0.0 ? plain() : method;
    if (!method.difference.empty() || (run == 0 && &reference == &method)) return;
    method.difference = first_difference(models_, reference.texts[prompt], record);
  }

  void write(const Method& method, const RequestRecord& record, int prompt, int run) {
    const ModelInfo& target = models_.target->info();
    AnswerContext context{prompts_[prompt].category,  model_id(target, method.spec, block_.temperature), method.spec,
                          requests_[prompt].sampling, text_of(models_, options_.stops, record.tokens),   run,
                          target.experts_per_token};
    context.turn = static_cast<int>(prompts_[prompt].answers.size()) + 1;
    host_.output.line(answer_json(record, context));
  }

  BenchCell cell(Method& method) const {
    BenchCell cell;
    cell.summary = settings_of(options_, block_, method.plan);
    cell.summary.spec = method.spec;
    cell.target = models_.target->info();
    cell.threads = models_.options.pool->size();
    if (method.engine != nullptr && block_.batch == 1) cell.step_leader = method.engine->step_leader(options_.sampling);
    cell.failure = plain().runs() ? method.failure : "plain decoding failed: " + plain().failure;
    if (cell.failure.empty()) measured(method, cell.summary);
    if (options_.show_text) {
      cell.texts = std::move(method.texts);
      cell.requests = requests_;
    }
    return cell;
  }

  void measured(const Method& method, BenchSummary& summary) const {
    method.counts.check_identities();
    summary.lossless = method.engine->lossless();
    summary.prompts = static_cast<int>(requests_.size());
    summary.runs = 2 * options_.repeat;
    summary.plain = plain().counts;
    summary.speculative = method.counts;
    for (const RequestRecord& text : method.texts) {
      summary.prompt_ids.push_back(text.id);
      summary.by_prompt.emplace_back().add(text);
    }
    for (std::size_t g = 0; g < method.group_rates.size(); ++g) {
      summary.speedups.push_back(method.group_rates[g] / plain().group_rates[g]);
    }
    summary.speedup = bootstrap_median(summary.speedups);
    summary.difference = plain().difference.empty() ? method.difference : plain().difference;
    if (block_.temperature == 0.0) summary.identical = summary.difference.empty();
  }

  const RunOptions& options_;
  const Block& block_;
  const Models& models_;
  BenchHost& host_;
  std::vector<Prompt> prompts_;  // of the block, then later turns
  std::vector<Request> requests_;
  std::vector<Method> methods_;  // plain decoding first
};

}  // namespace

int work_of(const RunOptions& options, const Block& block) {
  std::size_t prompts = 0;
  for (const Prompt& prompt : block.prompts) prompts += options.all_turns ? prompt.turns.size() : 1;
  return static_cast<int>((block.cells.size() + 1) * prompts) * 2 * options.repeat;
}

const Engines::Entry& Engines::get(const EngineSpec& spec) {
  const auto [place, fresh] = entries_.try_emplace({spec.drafter, spec.tree, spec.acceptance});
  Entry& entry = place->second;
  if (!fresh) return entry;
  entry.spec = spec;
  try {
    entry.engine = std::make_shared<Engine>(models_.target, spec, models_.load_model);
    entry.spec = entry.engine->spec();
  } catch (const std::exception& error) {
    entry.failure = one_line(error.what());
  }
  return entry;
}

BenchSummary settings_of(const RunOptions& options, const Block& block, const CellPlan& plan) {
  BenchSummary summary;
  summary.cell = plan.id;
  summary.dtype = block.dtype;
  summary.category = block.category;
  summary.batch = block.batch;
  summary.spec = plan.spec;
  summary.sampling = options.sampling;
  summary.sampling.temperature = block.temperature;
  return summary;
}

std::vector<BenchCell> measure_block(const RunOptions& options, const Block& block, Engines& engines, BenchHost& host) {
  return BlockRun(options, block, engines, host).run();
}

}  // namespace specmoe::cli
