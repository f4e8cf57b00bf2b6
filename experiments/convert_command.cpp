#include <algorithm>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/nn/convert.h"
#include "core/nn/memory_table.h"
#include "core/nn/model_family.h"
#include "core/nn/model_loader.h"
#include "core/nn/tokenizer.h"
#include "experiments/commands.h"
#include "experiments/flags.h"
#include "experiments/interrupt.h"
#include "experiments/model_agreement.h"
#include "experiments/output_folder.h"
#include "experiments/progress.h"
#include "experiments/run_options.h"
#include "experiments/table.h"
#include "kernels/check.h"

namespace specmoe::cli {
namespace {

using Json = nlohmann::ordered_json;
using kernels::DType;

constexpr const char* kHelp = R"(Usage: specmoe convert --target FOLDER --dtype int8|bfloat16 --out DIR [option]...

Writes a Hugging Face folder of a checkpoint in another element type, tensor by tensor, with its tokenizer. The source is
such a folder or a GGUF file. int8 has one scale per output and takes half of bfloat16; only specmoe reads it. bfloat16
expands float8 and 4-bit weights and is an ordinary checkpoint. Loaded with the same --dtype, the new folder gives the bits
that the old one would have given.

Prints what rounding did, layer by layer: relative error |rounded - source| / |source|, and the largest difference. With
--prompt or --prompts the source in bfloat16 answers them greedily, and the new checkpoint is compared with it at each token.
Both, and the SHA-256 of source and result, are kept in DIR/conversion.json; the hashes are in the metadata of
DIR/model.safetensors too. DIR appears whole or not at all.

Example:
  specmoe convert --target experiments/models/target --dtype int8 --out /tmp/target-int8 \
      --prompts experiments/models/prompts/quickstart.jsonl --memory-cap 1GB
)";

/// What the user asked for, checked.
struct Order {
  std::string source, out;
  DType dtype = DType::kInt8;
  std::vector<Prompt> prompts;
  int max_new_tokens = 0;
  std::int64_t memory_cap = 0;  // 0: none
};

/// "512MB", powers of 1000 as inspect prints them.
std::int64_t parse_bytes(const std::string& flag, const std::string& text) {
  const std::size_t end = std::min(text.size(), text.find_first_not_of("0123456789."));
  const std::string unit = text.substr(end);
  for (const auto& [name, size] : {std::pair{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}}) {
    if (end == 0 || unit != name) continue;
    const double bytes = parse_real(flag, text.substr(0, end)) * size;
    if (bytes >= 1 && bytes < 1e18) return static_cast<std::int64_t>(bytes);
  }
  fail("--", flag, ": expected a size such as 800MB or 12.5GB, got '", text, "'");
}

Order order_of(const Settings& settings) {
  Order order;
  order.source = settings.text("target");
  order.out = settings.text("out");
  SPECMOE_CHECK(!order.source.empty(), "convert needs --target FOLDER, a Hugging Face checkpoint or a GGUF file");
  SPECMOE_CHECK(!order.out.empty(), "convert needs --out DIR, a folder to be made");
  order.dtype = parse_dtype("dtype", settings.text("dtype"));
  SPECMOE_CHECK(order.dtype != DType::kFloat32, "--dtype: convert writes int8 or bfloat16, got float32");
  if (settings.given("prompt") || settings.given("prompts")) order.prompts = prompts_of(settings);
  order.max_new_tokens = static_cast<int>(settings.integer("max-new-tokens", 1, 1 << 24));
  if (settings.given("memory-cap")) order.memory_cap = parse_bytes("memory-cap", settings.text("memory-cap"));
  return order;
}

using Prompts = std::vector<std::vector<TokenId>>;

Prompts encode_prompts(const Order& order, const nn::ModelSpec& spec) {
  Prompts all;
  if (order.prompts.empty()) return all;
  const auto tokenizer = nn::Tokenizer::from_file(order.source);
  for (const Prompt& prompt : order.prompts) {
    all.push_back(tokenizer->encode(prompt.text, /*add_special=*/!prompt.rendered));
    SPECMOE_CHECK(!all.back().empty() && std::ssize(all.back()) < spec.max_positions, "question ", prompt.id, " has ",
                  all.back().size(), " tokens, expected 1 to ", spec.max_positions - 1);
  }
  return all;
}

/// Throws Error when converting, or comparing, would take more than the cap or the machine has.
void check_room(const Order& order, const nn::ModelSpec& spec, const Prompts& prompts, int threads) {
  std::int64_t bytes = nn::conversion_bytes(order.source, order.dtype, threads);
  if (!prompts.empty()) {
    std::int64_t longest = 0;
    for (const auto& prompt : prompts) longest = std::max(longest, std::ssize(prompt));
    nn::MemoryUse use{.dtype = DType::kBFloat16,
                      .context = std::min<std::int64_t>(spec.max_positions, longest + order.max_new_tokens),
                      .rows = kAgreementRows,
                      .threads = threads};
    std::int64_t both = nn::memory_table(spec, use).total();
    use.dtype = order.dtype;
    both += nn::memory_table(spec, use).total();
    bytes = std::max(bytes, both);
  }
  nn::check_memory(bytes, prompts.empty() ? "convert" : "convert with prompts");
  SPECMOE_CHECK(order.memory_cap == 0 || bytes <= order.memory_cap, "convert needs ", bytes_text(bytes), " of memory",
                prompts.empty() ? "" : " to compare the models on prompts", ", --memory-cap allows ",
                bytes_text(order.memory_cap));
}

std::optional<Agreement> agreement(const Order& order, const Prompts& prompts, const std::string& converted,
                                   std::shared_ptr<kernels::ThreadPool> pool, Progress& progress) {
  if (prompts.empty()) return std::nullopt;
  nn::LoadOptions load;
  load.pool = std::move(pool);
  load.dtype = DType::kBFloat16;
  const auto reference = nn::load_model(order.source, load);
  load.dtype = order.dtype;
  const auto other = nn::load_model(converted, load);
  Agreement sum;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    progress.step(static_cast<int>(i), static_cast<int>(prompts.size()), "comparing on prompts");
    poll_interrupt();
    const int room = reference->info().max_positions - static_cast<int>(prompts[i].size());
    add(sum, compare_models(*reference, *other, prompts[i], std::min(order.max_new_tokens, room)));
  }
  return sum;
}

/// Sums over some tensors, and the one among them that has the largest relative error.
struct Part {
  std::string name;
  nn::TensorRounding sum;
  const nn::TensorRounding* worst = nullptr;

  void add(const nn::TensorRounding& tensor) {
    sum.add(tensor);
    if (worst == nullptr || tensor.relative() > worst->relative()) worst = &tensor;
  }
};

/// All tensors, then those of no layer, then layer by layer.
std::vector<Part> parts_of(const nn::Conversion& done) {
  int layers = 0;
  for (const nn::TensorRounding& tensor : done.tensors) layers = std::max(layers, tensor.layer + 1);
  std::vector<Part> parts(static_cast<std::size_t>(layers) + 2);
  parts[0].name = "all";
  parts[1].name = "embedding, head";
  for (std::size_t i = 2; i < parts.size(); ++i) parts[i].name = concat("layer ", i - 2);
  for (const nn::TensorRounding& tensor : done.tensors) {
    parts[0].add(tensor);
    parts[static_cast<std::size_t>(tensor.layer + 2)].add(tensor);
  }
  return parts;
}

std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

Json rounding_json(const nn::TensorRounding& rounding) {
  return {{"relative_error", rounding.relative()}, {"largest_difference", rounding.largest_difference}};
}

Json report(const Order& order, const nn::ModelSpec& spec, const nn::Conversion& done,
            const std::optional<Agreement>& agreement) {
  Json json = {{"source", spec.name},
               {"model_type", spec.model_type},
               {"dtype", kernels::dtype_name(order.dtype)},
               {"source_bytes", done.source_bytes},
               {"bytes", done.bytes},
               {"source_sha256", done.source_sha256},
               {"data_sha256", done.data_sha256}};
  for (const Part& part : parts_of(done)) {
    if (part.worst == nullptr) continue;
    Json entry = rounding_json(part.sum);
    entry["worst_tensor"] = part.worst->name;
    json["parts"][part.name] = entry;
  }
  for (const nn::TensorRounding& tensor : done.tensors) json["tensors"][tensor.name] = rounding_json(tensor);
  if (!agreement) return json;
  json["agreement"] = {{"reference", "source in bfloat16"},
                       {"prompts", order.prompts.size()},
                       {"tokens", agreement->tokens},
                       {"same_likeliest_token", agreement->same},
                       {"mean_kl_nats", agreement->mean_divergence()},
                       {"largest_logit_difference", agreement->largest_distance}};
  return json;
}

void print_report(const Order& order, const nn::ModelSpec& spec, const nn::Conversion& done,
                  const std::optional<Agreement>& agreement) {
  std::cout << spec.name << " (" << spec.model_type << ") in " << kernels::dtype_name(order.dtype) << ": "
            << bytes_text(done.source_bytes) << " became " << bytes_text(done.bytes) << "\n\n";
  Table table;
  table.row({"", "relative error", "largest difference", "worst tensor"});
  for (const Part& part : parts_of(done)) {
    if (part.worst == nullptr) continue;
    table.row({part.name, short_number(part.sum.relative()), short_number(part.sum.largest_difference),
               concat(part.worst->name, " ", short_number(part.worst->relative()))});
  }
  table.print(std::cout);
  if (agreement) {
    std::cout << "\nagainst the source in bfloat16, " << order.prompts.size() << " prompts, " << agreement->tokens
              << " tokens: the same likeliest token at " << fixed(100 * agreement->share(), 2) << " %, KL "
              << short_number(agreement->mean_divergence()) << " nats a token, largest logit difference "
              << short_number(agreement->largest_distance) << "\n";
  }
  std::cout << "\nSHA-256 of the new tensors " << done.data_sha256 << "\nwritten: " << order.out << std::endl;
}

}  // namespace

int run_convert(const std::vector<std::string>& arguments) {
  if (wants_help(arguments)) {
    std::cout << kHelp << help_text(Command::kConvert);
    return 0;
  }
  const Settings settings = Settings::parse(Command::kConvert, arguments);
  const Order order = order_of(settings);
  const auto pool = std::make_shared<kernels::ThreadPool>(static_cast<int>(settings.integer("threads", 0, 1024)));
  const nn::ModelSpec spec = nn::read_spec(order.source);
  const Prompts prompts = encode_prompts(order, spec);
  check_room(order, spec, prompts, pool->size());
  OutputFolder folder(order.out);
  Progress progress(settings.on("quiet"));
  const auto follow = [&progress](std::int64_t bytes, std::int64_t total) {
    poll_interrupt();
    progress.bar(static_cast<double>(bytes) / static_cast<double>(total), "converting");
  };
  const nn::Conversion done = nn::convert_checkpoint(order.source, folder.path().string(), order.dtype, *pool, follow);
  const auto compared = agreement(order, prompts, folder.path().string(), pool, progress);
  progress.clear();
  std::ofstream file(folder.path() / "conversion.json");
  SPECMOE_CHECK(file << report(order, spec, done, compared).dump(2) << std::endl, "--out: writing '", order.out,
                "' failed; is the disk full?");
  file.close();
  folder.commit();
  print_report(order, spec, done, compared);
  return 0;
}

}  // namespace specmoe::cli
