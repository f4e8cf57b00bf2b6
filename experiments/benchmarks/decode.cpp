// Plain decoding beside the read bandwidth, and speculative decoding beside plain, in one process.
//
//     decode FOLDER [--dtype bfloat16] [--rounds 15] [--threads 0] [--output FILE.jsonl]
//     decode FOLDER --drafter 'independent(path=DRAFTER)' --tree 'chain(gamma=3)' 'chain(gamma=7)'
//
// A sample decodes greedily after one of six prompts, to the end of the text or a few tokens, one sequence, prefill not
// counted; the folder needs a tokenizer. The probe reads as many bytes as the model has, once, in between. Texts are
// compared with plain decoding before any speed is printed. GB/s counts active weights and the keys and values read; a
// model that partly stays in the cache reads faster than the probe, which does not (verify_curve replays the reads and
// is the fairer limit there).

#include <cstdio>
#include <memory>

#include "core/engine.h"
#include "core/nn/model_loader.h"
#include "core/nn/tokenizer.h"
#include "experiments/benchmarks/command_line.h"
#include "experiments/benchmarks/harness.h"
#include "experiments/benchmarks/lines.h"
#include "experiments/benchmarks/machine_limits.h"

namespace specmoe::bench {
namespace {

/// One way to decode and what it did last.
struct Method {
  std::string name;
  std::unique_ptr<Engine> engine;
  std::vector<TokenId> text;
  double decode_s = 0;
  double tau = 0;
};

/// Word problems such as the bundled models were trained on; for any other model, some text.
std::vector<Request> make_requests(const std::string& folder, const ModelInfo& info, int new_tokens) {
  const char* names[] = {"Omar", "Ada", "Nora", "Petra", "Elena", "Victor"};
  const char* things[] = {"pens", "shells", "stamps", "books", "eggs", "candles"};
  const auto tokenizer = nn::Tokenizer::from_file(folder);
  std::vector<Request> requests;
  for (int i = 0; i < 6; ++i) {
    const std::string text = concat("Problem: ", names[i], " has ", 9 + 7 * i, " ", things[i], " and buys ", 6 + 3 * i,
                                    " more. How many ", things[i], " does ", names[i], " have now?\nSolution:");
    requests.emplace_back().prompt = tokenizer->encode(text);
    requests.back().max_new_tokens = new_tokens;
    requests.back().stop_tokens = info.stop_tokens;
  }
  return requests;
}

void decode(Method& method, const Request& request) {
  const RequestRecord record = method.engine->generate({&request, 1}).front();
  std::int64_t time = 0;
  for (const StepRecord& step : record.steps) time += step.times.total_ns();
  method.text = record.tokens;
  method.decode_s = static_cast<double>(time) * 1e-9 / static_cast<double>(record.tokens.size());
  method.tau = static_cast<double>(record.tokens.size()) / static_cast<double>(record.steps.size());
}

struct Options {
  std::string folder;
  std::string dtype = "bfloat16";
  int rounds = 15;
  int threads = 0;
  std::string drafter;
  std::vector<std::string> trees;
  std::string output;
};

void run(const Options& asked) {
  SPECMOE_CHECK(asked.drafter.empty() == asked.trees.empty(),
                "--drafter and --tree come together, such as --drafter ngram --tree 'chain(gamma=4)'");
  Lines lines("decode", asked.output);
  nn::LoadOptions options;
  options.dtype = kernels::packed_dtype_from_name(asked.dtype);
  options.pool = std::make_shared<kernels::ThreadPool>(asked.threads);
  const auto model = nn::load_model(asked.folder, options);
  const ModelInfo& info = model->info();
  const bool small = info.active_weight_bytes < (64 << 20);

  std::vector<Method> methods;
  methods.push_back({"plain", std::make_unique<Engine>(model, EngineSpec{}), {}, 0, 0});
  for (const std::string& tree : asked.trees) {
    const EngineSpec spec = {.drafter = asked.drafter, .tree = tree};
    methods.push_back({tree, std::make_unique<Engine>(model, spec, nn::draft_loader(options)), {}, 0, 0});
  }
  const std::vector<Request> requests = make_requests(asked.folder, info, small ? 64 : 8);
  for (const Request& request : requests) {
    for (Method& method : methods) decode(method, request);
    for (const Method& method : methods) {
      SPECMOE_CHECK(method.text == methods[0].text, method.name, " does not give the text of plain decoding");
    }
  }

  const ReadProbe probe(static_cast<std::size_t>(info.weight_bytes));
  const double context = static_cast<double>(requests[0].prompt.size()) + requests[0].max_new_tokens / 2.0;
  const double bytes =
      static_cast<double>(info.active_weight_bytes) + context * static_cast<double>(info.kv_bytes_per_token);
  Interleaved samples;
  std::vector<double> tau(methods.size());
  std::vector<int> turn(methods.size());
  samples.add("read", static_cast<double>(probe.bytes()), [&] { probe.read(*options.pool); });
  for (std::size_t m = 0; m < methods.size(); ++m) {
    samples.add_timed(methods[m].name, [&, m] {
      decode(methods[m], requests[static_cast<std::size_t>(turn[m]++) % requests.size()]);
      tau[m] += methods[m].tau;
      return methods[m].decode_s;
    });
  }
  samples.run(asked.rounds);

  const double read = samples.seconds(0).median;
  std::printf("%s, %s, %s, %d threads; %s; commit %s\n", info.name.c_str(), info.dtype.c_str(),
              info.instruction_set.c_str(), options.pool->size(), lines.where().cpu.c_str(),
              lines.where().commit.c_str());
  std::printf("texts of all methods equal; read probe of %.1f MB: %.1f GB/s\n",
              static_cast<double>(probe.bytes()) / 1e6, 1e-9 / read);
  std::printf("%-24s %28s %10s %26s %6s %6s\n", "method", "us a token [95 %]", "tokens/s", "speed-up [95 %]", "tau",
              "quiet");
  lines.of(info);
  lines.always({{"threads", options.pool->size()}, {"drafter", asked.drafter}, {"measured", samples.measured()}});
  for (std::size_t m = 0; m < methods.size(); ++m) {
    const Interval time = samples.seconds(m + 1);
    const Interval speedup = samples.ratio(1, m + 1);
    std::printf("%-24s %28s %10.0f %26s %6.2f %3d/%d\n", methods[m].name.c_str(), interval_text(time, 1e6, 1).c_str(),
                1 / time.median, interval_text(speedup, 1, 2).c_str(), tau[m] / turn[m], samples.kept(m + 1),
                samples.measured());
    lines.write({{"method", methods[m].name},
                 {"seconds", interval_json(time)},
                 {"speedup", interval_json(speedup)},
                 {"tau", tau[m] / turn[m]},
                 {"plain_bytes", bytes},
                 {"read_bytes_per_s", 1 / read},
                 {"quiet", samples.kept(m + 1)}});
  }
  const double rate = bytes / samples.seconds(1).median;
  std::printf("plain reads %.1f MB a token: %.1f GB/s, %.2f of the probe\n", bytes / 1e6, rate / 1e9, rate * read);
}

}  // namespace
}  // namespace specmoe::bench

int main(int argc, char** argv) {
  specmoe::bench::Options options;
  specmoe::bench::CommandLine line("decode",
                                   "Plain decoding beside the read bandwidth, and speculative decoding beside plain.");
  line.word("FOLDER", options.folder, "checkpoint with a tokenizer")
      .option("dtype", options.dtype, "element type of the weights")
      .option("rounds", options.rounds, 1, "samples of each method")
      .threads(options.threads)
      .option("drafter", options.drafter, "such as 'independent(path=FOLDER)'; none: plain decoding alone")
      .option("tree", options.trees, "one or more, such as 'chain(gamma=4)'")
      .output(options.output);
  return line.run(argc, argv, [&] { specmoe::bench::run(options); });
}
