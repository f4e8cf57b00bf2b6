// Time of AcceptancePolicy::judge and of tree growth outside the model, per sequence, at a real vocabulary.
//
//     judge_bench [--vocab 32000] [--repeat 200] [--accept POLICY] [--output FILE.jsonl]
//
// Trees of 64 nodes for policies that judge trees, chains of 64 nodes for the others, on rows like a language model's;
// the draft's logits are the target's with noise. Not counted: the models, softmax, and drawing the children. The rows
// are read once before each judgement, because the softmax that makes them leaves them in the caches.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <map>
#include <string>
#include <vector>

#include "core/acceptance.h"
#include "core/draw.h"
#include "core/tree_policy.h"
#include "experiments/benchmarks/command_line.h"
#include "experiments/benchmarks/lines.h"

namespace specmoe {
namespace {

/// Processor time of this thread in microseconds: other programs on the machine do not count.
double now_us() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) * 1e-3;
}
/// Wall time in microseconds, for stretches so short that reading the processor time would be most of it.
double wall_us() {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

/// Rows addressed by seed: a few likely tokens and a long tail, some 2.5 nats of entropy.
class LanguageLikeRows {
 public:
  explicit LanguageLikeRows(int vocab) : vocab_(vocab) {}

  void fill(std::uint64_t seed, double noise, std::span<float> row) const {
    std::uint64_t base = seed * 2 + 1;
    std::uint64_t extra = seed * 2 + 1000003;
    double sum = 0.0;
    for (int x = 0; x < vocab_; ++x) {
      sum += row[x] = std::exp(4.0F * normal(base) + static_cast<float>(noise) * normal(extra));
    }
    for (float& value : row) value = static_cast<float>(value / sum);
  }

 private:
  /// The sum of four uniforms, scaled to variance 1.
  static float normal(std::uint64_t& state) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    const std::uint64_t bits = state ^ (state >> 29);
    const auto part = [bits](int shift) { return static_cast<float>((bits >> shift) & 0xffff); };
    return ((part(0) + part(16) + part(32) + part(48)) / 65536.0F - 2.0F) * 1.7320508F;
  }
  int vocab_;
};

/// One drafted sequence with the target's rows of all its nodes, and the time that its growth took.
struct Case {
  Draft<float> draft;
  StoredRows<float> target;
  double grow_us = 0.0;
};

/// Reads every row, so that they lie in the caches as after the softmax that made them.
void warm(Case& made) {
  float sum = 0.0F;
  for (StoredRows<float>* rows : {&made.draft.rows, &made.target}) {
    for (int n = 0; n < rows->size(); ++n) sum += read_block(rows->dense(n).data(), rows->vocab()).sum;
  }
  [[maybe_unused]] const volatile float read = sum;
}

/// Grows a tree as core/grow.cpp does; rows come from the node's number, so that they cost nothing to propose.
void grow_case(const TreePolicy& tree, DraftLaw law, int vocab, std::uint64_t seed, Case& made) {
  const LanguageLikeRows rows(vocab);
  PhiloxUniforms uniforms(seed, 7, 0);
  Draft<float>& draft = made.draft;
  draft.law = law;
  draft.reset(0, vocab);
  std::vector<NodeId> frontier = {TokenTree::kRoot};
  std::vector<NodeId> added;
  std::vector<NodeId> next;
  std::vector<std::int32_t> proposed;
  std::vector<Growth> growth;
  while (!frontier.empty()) {
    proposed.clear();
    for (NodeId node : frontier) {
      proposed.push_back(draft.rows.add_dense());
      rows.fill(seed * 1000 + static_cast<std::uint64_t>(node), 1.0, draft.rows.dense(proposed.back()));
    }
    const GrowthView<float> view{draft, frontier, proposed};
    growth.clear();
    added.clear();
    next.clear();
    double begin = wall_us();
    tree.expand(view, growth);
    made.grow_us += wall_us() - begin;
    for (const Growth& one : growth) {
      const auto at = std::find(frontier.begin(), frontier.end(), one.parent) - frontier.begin();
      draw_children<float>(draft, one.parent, one.children, std::span(&proposed[at], 1), uniforms, added);
    }
    begin = wall_us();
    tree.next_frontier(view, added, next);
    made.grow_us += wall_us() - begin;
    frontier.swap(next);
  }
  if (law == DraftLaw::kDeterministic) {
    const double begin = wall_us();
    const GrowthView<float> view{draft, frontier, proposed};
    tree.prune(view, next);
    made.grow_us += wall_us() - begin;
  }
  made.target.reset(vocab);
  for (int node = 0; node < draft.tree.size(); ++node) {
    rows.fill(seed * 1000 + static_cast<std::uint64_t>(node), 0.0, made.target.dense(made.target.add_dense()));
  }
}

void bench_policy(const std::string& name, const std::string& tree, DraftLaw law, int vocab, int repetitions,
                  bench::Lines& lines) {
  const auto policy = acceptance_policies().create(name);
  const auto topology = tree_policies().create(tree);
  static std::map<std::pair<std::string, DraftLaw>, std::vector<Case>> made;
  std::vector<Case>& cases = made[{tree, law}];
  for (std::uint64_t seed = 1; cases.size() < 3; ++seed) grow_case(*topology, law, vocab, seed, cases.emplace_back());
  Verdict verdict;
  std::vector<double> times;
  double accepted = 0.0;
  for (int i = 0; i < repetitions; ++i) {
    Case& one = cases[static_cast<std::size_t>(i) % cases.size()];
    PhiloxUniforms uniforms(static_cast<std::uint64_t>(i), 3, 0);
    warm(one);
    const double begin = now_us();
    policy->judge(one.draft, one.target, uniforms, verdict);
    times.push_back(now_us() - begin);
    accepted += static_cast<double>(verdict.accepted.size());
  }
  std::fflush(stdout);
  std::sort(times.begin(), times.end());
  std::printf("%-16s %-22s %-20s %5d %10.1f %10.1f %9.2f\n", name.c_str(), tree.c_str(),
              std::string(law_name(law)).c_str(), cases[0].draft.tree.size(), median(times),
              times[times.size() * 95 / 100], accepted / repetitions);
  lines.write({{"stage", "judge"},
               {"acceptance", name},
               {"tree", tree},
               {"law", law_name(law)},
               {"nodes", cases[0].draft.tree.size()},
               {"seconds", median(times) * 1e-6},
               {"seconds_95", times[times.size() * 95 / 100] * 1e-6},
               {"accepted", accepted / repetitions}});
}

void bench_topology(const std::string& name, int vocab, bench::Lines& lines) {
  const auto topology = tree_policies().create(name);
  std::vector<double> times;
  int grown = 0;
  for (std::uint64_t i = 0; i < 5; ++i) {
    Case one;
    grow_case(*topology, topology->law(), vocab, i + 1, one);
    times.push_back(one.grow_us);
    grown = one.draft.tree.size();
  }
  std::printf("%-40s %5d %10.1f\n", name.c_str(), grown, median(times));
  lines.write({{"stage", "grow"}, {"tree", name}, {"nodes", grown}, {"seconds", median(times) * 1e-6}});
}

struct Options {
  int vocab = 32000;
  int repetitions = 200;
  std::string policy;
  std::string output;
};

void run(const Options& asked) {
  const int vocab = asked.vocab;
  bench::Lines lines("judge_bench", asked.output);
  lines.always({{"vocab", vocab}});
  std::vector<std::string> policies = {asked.policy};
  if (asked.policy.empty()) policies = acceptance_policies().names();
  acceptance_policies().create(policies[0]);  // before any output: names the known ones when it is none
  std::printf("judge, vocabulary %d\n%-16s %-22s %-20s %5s %10s %10s %9s\n", vocab, "policy", "tree", "law", "nodes",
              "median us", "95 % us", "accepted");
  for (const std::string& name : policies) {
    const auto policy = acceptance_policies().create(name);
    const bool trees = policy->judges_trees();
    for (DraftLaw law : {DraftLaw::kIid, DraftLaw::kWithoutReplacement, DraftLaw::kDeterministic}) {
      if (policy->lossless() && !policy->lossless_laws().contains(law)) continue;
      bench_policy(name, trees ? "expansion(4,2,2,1,1)" : "chain(63)", law, vocab, asked.repetitions, lines);
    }
  }
  std::printf("\ngrowth and selection outside the model, law of the topology\n%-40s %5s %10s\n", "topology", "grown",
              "median us");
  for (const char* name :
       {"chain(63)", "chains(k=7,gamma=9)", "expansion(4,2,2,1,1)", "static_ranks(preset=medusa)", "sequoia(nodes=64)",
        "confidence(nodes=63)", "opt_tree(nodes=63)", "best_first(nodes=63,batch=8)", "expert_aware(nodes=63)",
        "gated(nodes=63)", "adaptive_chain(gamma=63)"}) {
    bench_topology(name, vocab, lines);
  }
}

}  // namespace
}  // namespace specmoe

int main(int argc, char** argv) {
  specmoe::Options options;
  specmoe::bench::CommandLine line("judge_bench", "Acceptance policies and tree growth outside the model.");
  line.option("vocab", options.vocab, 2, "tokens of a row")
      .option("repeat", options.repetitions, 1, "judgements of each policy")
      .option("accept", options.policy, "only this policy")
      .output(options.output);
  return line.run(argc, argv, [&] { specmoe::run(options); });
}
