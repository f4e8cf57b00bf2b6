#include "experiments/models.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

#include "core/nn/text_stop.h"
#include "experiments/interrupt.h"
#include "experiments/table.h"
#include "kernels/check.h"

namespace specmoe::cli {
namespace {

std::string method_name(const std::string& spec) { return spec.substr(0, spec.find('(')); }

constexpr std::int64_t kLeastBarBytes = 128 << 20;  // a smaller model is there before anyone looks

std::shared_ptr<LanguageModel> load_reporting(const std::string& folder, nn::LoadOptions options, Progress& progress) {
  const auto begin = std::chrono::steady_clock::now();
  options.notice = [&progress](const std::string& line) { progress.say(line); };
  options.progress = [&progress, &folder](std::int64_t done, std::int64_t total) {
    poll_interrupt();
    if (total >= kLeastBarBytes)
      progress.bar(static_cast<double>(done) / static_cast<double>(total), "loading " + folder);
  };
  auto model = nn::load_model(folder, options);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const ModelInfo& info = model->info();
  progress.say("loaded " + folder + ": " + info.architecture + ", " + with_unit(double(info.parameters)) +
               " parameters (" + with_unit(double(info.active_parameters)) + " active), " + info.dtype + ", " +
               (info.kv_dtype == "float32" ? "" : "cache " + info.kv_dtype + ", ") + info.instruction_set + ", " +
               fixed(seconds, 2) + " s");
  poll_interrupt();
  return model;
}

}  // namespace

Models open_models(const RunOptions& options, const std::string& dtype, Progress& progress) {
  const auto has_turns = [](const Prompt& prompt) { return prompt.turns.size() > 1; };
  if (!options.all_turns && std::any_of(options.prompts.begin(), options.prompts.end(), has_turns)) {
    progress.say("some questions have several turns: only the first turn of each is used");
  }
  Models models;
  models.options.dtype = parse_dtype("dtype", dtype);
  models.options.kv_dtype = options.kv_dtype;
  models.options.device = options.device;
  models.options.fast_prefill = options.fast_prefill;
  models.options.cache = options.cache;
  models.options.pool = std::make_shared<kernels::ThreadPool>(options.threads);
  models.target = load_reporting(options.target, models.options, progress);
  models.tokenizer = nn::Tokenizer::from_file(options.target);
  using Loaded = std::map<std::pair<std::string, std::string>, std::shared_ptr<LanguageModel>>;
  models.load_model = [options = models.options, &progress, loaded = std::make_shared<Loaded>()](
                          const std::string& folder, const std::string& own_dtype) {
    auto& model = (*loaded)[{folder, own_dtype}];
    if (model != nullptr) return model;
    nn::LoadOptions own = options;
    own.dtype = kernels::packed_dtype_from_name(own_dtype);
    model = load_reporting(folder, own, progress);
    return model;
  };
  return models;
}

std::vector<Request> make_requests(const RunOptions& options, std::span<const Prompt> prompts, const Models& models,
                                   double temperature) {
  std::vector<Request> requests;
  for (const Prompt& prompt : prompts) {
    Request request;
    request.id = prompt.id;
    request.prompt = models.tokenizer->encode(prompt.text, /*add_special=*/!prompt.rendered);
    request.sampling = options.sampling;
    request.sampling.temperature = temperature;
    request.max_new_tokens = options.max_new_tokens;
    if (!options.ignore_eos) request.stop_tokens = models.target->info().stop_tokens;
    check_prompt(request, models.target->info());  // every one before the first one runs
    requests.push_back(std::move(request));
  }
  tell_repeats_apart(requests);
  return requests;
}

std::string text_of(const Models& models, const std::vector<std::string>& stops, const std::vector<TokenId>& tokens) {
  nn::TextStop text(models.tokenizer, stops);
  for (TokenId token : tokens) text.push(token);
  text.finish();
  return text.text();
}

std::string model_id(const ModelInfo& target, const EngineSpec& spec, double temperature) {
  std::string id = target.name + "-";
  id += spec.drafter.empty()
            ? "plain"
            : method_name(spec.drafter) + "-" + method_name(spec.tree) + "-" + method_name(spec.acceptance);
  return concat(id, "-", target.dtype, "-temp-", temperature);
}

}  // namespace specmoe::cli
