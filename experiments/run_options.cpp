#include "experiments/run_options.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <map>

#include "core/acceptance.h"
#include "core/drafter.h"
#include "core/tree_policy.h"
#include "experiments/chat.h"
#include "experiments/flags.h"
#include "experiments/models.h"
#include "kernels/check.h"

namespace specmoe::cli {
namespace {

constexpr int kMostTokens = 1 << 24;

/// Whether a flag's list may have several items: all of them make bench's grid, and tune measures more trees than one.
bool takes_several(Command command, const std::string& flag) {
  return command == Command::kBench || (command == Command::kTune && flag == "tree");
}

void check_several(Command command, const std::string& flag, std::size_t items) {
  SPECMOE_CHECK(items <= 1 || takes_several(command, flag), command_name(command), " takes one --", flag, ", got ",
                items, "; bench compares several");
}

/// The items of a flag; one empty item when it is not given.
std::vector<std::string> items_or_default(Command command, const Settings& settings, const std::string& flag) {
  std::vector<std::string> items = settings.items(flag);
  check_several(command, flag, items.size());
  if (items.empty()) items.emplace_back();
  return items;
}

/// Specs with every parameter written out. A misspelt name or parameter is found before any model is loaded, and so is
/// a cell that would be measured twice.
template <class Interface>
void complete(const Registry<Interface>& registry, const std::string& flag, std::vector<std::string>& specs) {
  std::map<std::string, std::string> given;
  for (std::string& spec : specs) {
    if (spec.empty()) continue;
    std::string canonical;
    registry.create(spec, canonical);
    const auto [same, fresh] = given.emplace(canonical, spec);
    SPECMOE_CHECK(fresh, "--", flag, ": '", same->second, "' and '", spec, "' are the same; give it once");
    spec = canonical;
  }
}

template <class Value>
void check_distinct(const std::string& flag, const std::vector<Value>& values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bool again = std::find(values.begin(), values.begin() + i, values[i]) != values.begin() + i;
    SPECMOE_CHECK(!again, "--", flag, ": ", values[i], " appears twice; give it once");
  }
}

/// The prompt classes to measure: "each" stands for every class of the file, in the order they come.
std::vector<std::string> categories_of(const std::vector<std::string>& given, const std::vector<Prompt>& prompts) {
  std::vector<std::string> known;
  for (const Prompt& prompt : prompts) {
    if (prompt.category.empty() || std::count(known.begin(), known.end(), prompt.category) > 0) continue;
    known.push_back(prompt.category);
  }
  std::vector<std::string> wanted;
  for (const std::string& name : given) {
    if (name == "each") {
      SPECMOE_CHECK(!known.empty(), "--category each: no prompt has a category; leave it out");
      wanted.insert(wanted.end(), known.begin(), known.end());
      continue;
    }
    std::string names;
    for (const std::string& one : known) names += one + ", ";
    SPECMOE_CHECK(name == "all" || std::count(known.begin(), known.end(), name) > 0,
                  "--category: no prompt is of class '", name, "'; known: ", names, "each, all");
    wanted.push_back(name);
  }
  check_distinct("category", wanted);
  return wanted;
}

/// Whether two names lead to one file, by a link or written in two ways.
bool same_file(const std::string& one, const std::string& other) {
  namespace fs = std::filesystem;
  const auto place = [](const std::string& name) {
    std::error_code error;
    const fs::path path = fs::weakly_canonical(fs::absolute(name), error);
    return error ? fs::path(name) : path;
  };
  return !other.empty() && place(one) == place(other);
}

void take_sampling(const Settings& settings, RunOptions& options) {
  for (const std::string& text : settings.items("temperature")) {
    options.temperatures.push_back(parse_real("temperature", text));
  }
  check_distinct("temperature", options.temperatures);
  options.sampling.top_k = static_cast<int>(settings.integer("top-k", 0, kMostTokens));
  options.sampling.top_p = settings.real("top-p");
  options.sampling.min_p = settings.real("min-p");
  options.sampling.repetition_penalty = settings.real("repetition-penalty");
  options.sampling.presence_penalty = settings.real("presence-penalty");
  options.sampling.frequency_penalty = settings.real("frequency-penalty");
  options.sampling.seed =
      static_cast<std::uint64_t>(settings.integer("seed", 0, std::numeric_limits<std::int64_t>::max()));
  for (double temperature : options.temperatures) {
    SamplingParams sampling = options.sampling;
    sampling.temperature = temperature;
    sampling.validate();
  }
}

}  // namespace

std::vector<Prompt> prompts_of(const Settings& settings) {
  const std::vector<std::string> texts = settings.texts("prompt");
  SPECMOE_CHECK(texts.empty() != !settings.given("prompts"),
                "give the text to continue as --prompt TEXT, or a file of them as --prompts FILE (one of the two)");
  std::vector<Prompt> prompts;
  if (settings.given("prompts")) prompts = read_prompts(settings.text("prompts"));
  for (const std::string& text : texts) {
    SPECMOE_CHECK(!text.empty(), "--prompt: the text is empty");
    const int number = static_cast<int>(prompts.size());
    prompts.push_back({std::to_string(number + 1), "", text, {text}, {}});
    prompts.back().number = number;
  }
  if (settings.on("chat")) render_chat(settings.text("target"), prompts);
  return prompts;
}

RunOptions run_options(Command command, const Settings& settings) {
  RunOptions options;
  options.target = settings.text("target");
  SPECMOE_CHECK(!options.target.empty(), command_name(command), " needs --target FOLDER, a Hugging Face checkpoint");
  options.drafters = items_or_default(command, settings, "drafter");
  options.trees = items_or_default(command, settings, "tree");
  options.acceptances = items_or_default(command, settings, "accept");
  complete(drafters(), "drafter", options.drafters);
  complete(tree_policies(), "tree", options.trees);
  complete(acceptance_policies(), "accept", options.acceptances);
  take_sampling(settings, options);
  check_several(command, "temperature", options.temperatures.size());
  SPECMOE_CHECK(settings.given("drafter") || (!settings.given("tree") && !settings.given("accept")),
                "--tree and --accept need a --drafter; without one decoding is plain");
  SPECMOE_CHECK(command == Command::kGenerate || settings.given("drafter"), command_name(command),
                " needs --drafter SPEC to compare with plain decoding; `specmoe list` shows what there is");
  options.allow_lossy = settings.on("allow-lossy");

  options.dtypes = settings.items("dtype");
  check_distinct("dtype", options.dtypes);
  for (const std::string& dtype : options.dtypes) parse_dtype("dtype", dtype);
  options.kv_dtype = parse_dtype("kv-dtype", settings.text("kv-dtype"));
  options.device = settings.text("device");
  options.device_loop = settings.on("device-loop");
  options.device_switch = settings.on("device-switch");
  options.fast_prefill = settings.on("fast-prefill");
  options.cache = settings.text("cache");
  options.threads = static_cast<int>(settings.integer("threads", 0, 1024));

  options.max_new_tokens = static_cast<int>(settings.integer("max-new-tokens", 1, kMostTokens));
  options.stops = settings.texts("stop");
  for (const std::string& stop : options.stops) SPECMOE_CHECK(!stop.empty(), "--stop: the text is empty");
  options.ignore_eos = settings.on("ignore-eos");

  for (std::int64_t batch : settings.integers("batch", 1, 4096)) options.batches.push_back(static_cast<int>(batch));
  check_distinct("batch", options.batches);
  check_several(command, "batch", options.batches.size());
  check_several(command, "dtype", options.dtypes.size());
  if (command != Command::kGenerate) options.repeat = static_cast<int>(settings.integer("repeat", 1, 10000));
  if (command != Command::kTune) options.mark = mark_style(settings.text("mark"));
  options.show_text = settings.on("show-text");
  options.quiet = settings.on("quiet");
  options.output = settings.text("output");
  options.cells = settings.text("cells");
  SPECMOE_CHECK(options.cells.empty() || !same_file(options.cells, options.output),
                "--cells and --output name the same file '", options.cells,
                "': the first grows by a line per cell, the second is written anew; give two");
  for (const char* input : {"prompts", "config"}) {
    SPECMOE_CHECK(options.output.empty() || !same_file(options.output, settings.text(input)), "--output and --", input,
                  " name the same file '", options.output, "', which would be written anew; give another for one");
  }
  options.prompts = prompts_of(settings);
  options.all_turns = settings.on("chat");
  if (command == Command::kBench) options.categories = categories_of(settings.items("category"), options.prompts);
  return options;
}

}  // namespace specmoe::cli
