#include "experiments/run_options.h"

#include <limits>

#include "core/acceptance.h"
#include "core/drafter.h"
#include "core/tree_policy.h"
#include "experiments/flags.h"
#include "kernels/check.h"

namespace specmoe::cli {
namespace {

constexpr int kMostTokens = 1 << 24;

/// The items of a flag; one empty item when it is not given.
std::vector<std::string> items_or_default(Command command, const Settings& settings, const std::string& flag) {
  std::vector<std::string> items = settings.items(flag);
  SPECMOE_CHECK(command == Command::kBench || items.size() <= 1, "generate takes one --", flag, ", got ", items.size(),
                "; bench compares several");
  if (items.empty()) items.emplace_back();
  return items;
}

/// A misspelt name or parameter is found before any model is loaded.
void check_specs(const RunOptions& options) {
  for (const std::string& spec : options.drafters) {
    if (!spec.empty()) drafters().create(spec);
  }
  for (const std::string& spec : options.trees) {
    if (!spec.empty()) tree_policies().create(spec);
  }
  for (const std::string& spec : options.acceptances) {
    if (!spec.empty()) acceptance_policies().create(spec);
  }
}

std::vector<Prompt> prompts_of(const Settings& settings) {
  const std::vector<std::string> texts = settings.texts("prompt");
  SPECMOE_CHECK(texts.empty() != !settings.given("prompts"),
                "give the text to continue as --prompt TEXT, or a file of them as --prompts FILE (one of the two)");
  if (settings.given("prompts")) return read_prompts(settings.text("prompts"));
  std::vector<Prompt> prompts;
  for (const std::string& text : texts) {
    SPECMOE_CHECK(!text.empty(), "--prompt: the text is empty");
    prompts.push_back({std::to_string(prompts.size() + 1), "", text, 1});
  }
  return prompts;
}

void take_sampling(const Settings& settings, RunOptions& options) {
  for (const std::string& text : settings.items("temperature")) {
    options.temperatures.push_back(parse_real("temperature", text));
  }
  options.sampling.top_k = static_cast<int>(settings.integer("top-k", 0, kMostTokens));
  options.sampling.top_p = settings.real("top-p");
  options.sampling.seed =
      static_cast<std::uint64_t>(settings.integer("seed", 0, std::numeric_limits<std::int64_t>::max()));
  for (double temperature : options.temperatures) {
    SamplingParams sampling = options.sampling;
    sampling.temperature = temperature;
    sampling.validate();
  }
}

}  // namespace

RunOptions run_options(Command command, const Settings& settings) {
  RunOptions options;
  options.target = settings.text("target");
  SPECMOE_CHECK(!options.target.empty(), command_name(command), " needs --target FOLDER, a Hugging Face checkpoint");
  options.drafters = items_or_default(command, settings, "drafter");
  options.trees = items_or_default(command, settings, "tree");
  options.acceptances = items_or_default(command, settings, "accept");
  check_specs(options);
  take_sampling(settings, options);
  SPECMOE_CHECK(command == Command::kBench || options.temperatures.size() == 1, "generate takes one --temperature");
  SPECMOE_CHECK(settings.given("drafter") || (!settings.given("tree") && !settings.given("accept")),
                "--tree and --accept need a --drafter; without one decoding is plain");
  SPECMOE_CHECK(command != Command::kBench || settings.given("drafter"),
                "bench needs --drafter SPEC to compare with plain decoding; `specmoe list` shows what there is");
  options.allow_lossy = settings.on("allow-lossy");

  options.dtype = settings.text("dtype");
  options.device = settings.text("device");
  options.threads = static_cast<int>(settings.integer("threads", 0, 1024));

  options.max_new_tokens = static_cast<int>(settings.integer("max-new-tokens", 1, kMostTokens));
  options.stops = settings.texts("stop");
  for (const std::string& stop : options.stops) SPECMOE_CHECK(!stop.empty(), "--stop: the text is empty");
  options.ignore_eos = settings.on("ignore-eos");

  options.batch = static_cast<int>(settings.integer("batch", 1, 4096));
  if (command == Command::kBench) options.repeat = static_cast<int>(settings.integer("repeat", 1, 10000));
  options.mark = mark_style(settings.text("mark"));
  options.show_text = settings.on("show-text");
  options.quiet = settings.on("quiet");
  options.output = settings.text("output");
  options.prompts = prompts_of(settings);
  return options;
}

}  // namespace specmoe::cli
