#include <iostream>

#include "core/nn/draft_head.h"
#include "core/nn/gguf_model.h"
#include "core/nn/medusa_heads.h"
#include "core/nn/memory_table.h"
#include "core/nn/model_family.h"
#include "experiments/commands.h"
#include "experiments/flags.h"
#include "experiments/models.h"
#include "experiments/settings.h"
#include "experiments/table.h"
#include "kernels/check.h"
#include "kernels/thread_pool.h"

namespace specmoe::cli {
namespace {

constexpr const char* kHelp = R"(Usage: specmoe inspect --target MODEL [option]...

Prints what a checkpoint is and the memory it will take, from its config.json (a GGUF file: its header) alone: nothing is
loaded. With --drafter 'independent(path=MODEL)' the drafter too. The KV cache is for --batch texts of the whole
context.

Example:
  specmoe inspect --target experiments/models/target --drafter 'independent(path=experiments/models/drafter)'
)";

constexpr std::int64_t kPassRows = 64;  // workspaces are shown for a pass of this many rows per sequence

/// How a GGUF file, or a folder that convert wrote, stores weights and what they become; empty for other folders.
std::string storage(const std::string& path, const nn::ModelSpec& spec, kernels::DType dtype) {
  if (spec.quantization == nn::Quantization::kInt8) return "int8, a scale per output";
  const auto gguf = nn::find_gguf(path);
  if (!gguf) return "";
  return concat(nn::gguf_storage(nn::GgufFile(*gguf)), "; expanded to ", kernels::dtype_name(dtype), " when loaded");
}

void print_architecture(const nn::ModelSpec& spec, const nn::ModelSize& size, const std::string& stored) {
  const nn::LayerSpec& layer = spec.layers.at(0);
  Table table(2);
  table.row({"model", spec.name + " (" + spec.model_type + ")"});
  table.row({"layers", concat(spec.layers.size(), " of width ", spec.hidden_size)});
  table.row({"attention", concat(layer.attention.heads, " heads, ", layer.attention.kv_heads, " key-value heads of ",
                                 layer.attention.head_dim)});
  if (layer.ffn.router) {
    table.row({"experts", concat(layer.ffn.router->experts, " of width ", layer.ffn.width, ", ",
                                 layer.ffn.router->experts_per_token, " per token")});
  } else {
    table.row({"feed-forward", concat("dense, width ", layer.ffn.width)});
  }
  if (spec.fusion) {
    table.row({"vocabulary", concat(spec.head_rows(), " of the target's ", spec.vocab_size,
                                    spec.tied_embeddings ? ", embeddings the target's" : "")});
  } else {
    table.row({"vocabulary", concat(spec.vocab_size, spec.tied_embeddings ? ", embeddings tied" : "")});
  }
  table.row({"context", concat(spec.max_positions, " tokens")});
  table.row({"parameters", with_unit(double(size.parameters)) + " total, " + with_unit(double(size.active_parameters)) +
                               " active per token"});
  if (!stored.empty()) table.row({"stored", stored});
  table.row({"read per token", bytes_text(size.active_weight_bytes) + " of weights"});
  table.print(std::cout);
}

void print_memory(const nn::ModelSpec& spec, const nn::MemoryUse& use, std::int64_t batch) {
  const nn::MemoryTable memory = nn::memory_table(spec, use);
  std::cout << "\nmemory, " << kernels::dtype_name(use.dtype) << ", cache " << kernels::dtype_name(use.kv_dtype)
            << ", batch " << batch << ", context " << spec.max_positions << "\n";
  Table table;
  for (const nn::MemoryLine& line : memory.lines) table.row({"  " + line.part, bytes_text(line.bytes)});
  table.row({"  total", bytes_text(memory.total())});
  table.print(std::cout);
}

void print_model(const std::string& folder, const nn::ModelSpec& spec, const Settings& settings) {
  const std::int64_t batch = settings.integer("batch", 1, 4096);
  nn::MemoryUse use;
  use.dtype = parse_dtype("dtype", settings.text("dtype"));
  use.kv_dtype = parse_dtype("kv-dtype", settings.text("kv-dtype"));
  use.context = batch * spec.max_positions;
  use.rows = batch * kPassRows;
  use.threads = kernels::ThreadPool(static_cast<int>(settings.integer("threads", 0, 1024))).size();
  print_architecture(spec, nn::model_size(spec, use.dtype, spec.tied_embeddings), storage(folder, spec, use.dtype));
  print_memory(spec, use, batch);
}

/// Medusa heads have neither layers nor caches.
void print_medusa_heads(const nn::MedusaSpec& spec, kernels::DType dtype) {
  Table table(2);
  table.row({"model", spec.name + " (medusa)"});
  table.row({"heads", concat(spec.heads, " of ", spec.blocks, " residual blocks of width ", spec.hidden_size)});
  table.row({"vocabulary", concat(spec.vocab_size, spec.own_output ? "" : ", output matrix the target's")});
  table.row({"parameters", with_unit(double(spec.parameters())) + " total"});
  table.row({"read per depth", bytes_text(spec.read_bytes(dtype)) + " of weights"});
  table.row({"memory", concat(bytes_text(spec.weight_bytes(dtype)), ", ", kernels::dtype_name(dtype))});
  table.print(std::cout);
}

void print_checkpoint(const DraftCheckpoint& checkpoint, const nn::ModelSpec& target, const Settings& settings) {
  const std::string& path = checkpoint.path;
  switch (checkpoint.kind) {
    case DraftCheckpoint::Kind::kModel:
      return print_model(path, nn::read_spec(path), settings);
    case DraftCheckpoint::Kind::kDraftHead:
      return print_model(path, nn::read_draft_head(nn::Checkpoint(path), target).model, settings);
    case DraftCheckpoint::Kind::kMedusaHeads:
      return print_medusa_heads(nn::read_medusa_heads(nn::open_medusa_heads(path), target),
                                parse_dtype("dtype", settings.text("dtype")));
  }
}

}  // namespace

int run_inspect(const std::vector<std::string>& arguments) {
  if (wants_help(arguments)) {
    std::cout << kHelp << help_text(Command::kInspect);
    return 0;
  }
  const Settings settings = Settings::parse(Command::kInspect, arguments);
  const std::string target = settings.text("target");
  SPECMOE_CHECK(!target.empty(), "inspect needs --target FOLDER, a Hugging Face checkpoint");
  SPECMOE_CHECK(settings.text("device") == "cpu", "--device: inspect knows what a model takes on cpu only, got '",
                settings.text("device"), "'");
  const nn::ModelSpec spec = nn::read_spec(target);
  print_model(target, spec, settings);
  for (const std::string& drafter : settings.items("drafter")) {
    std::string canonical;
    const std::vector<DraftCheckpoint> checkpoints = drafters().create(drafter, canonical)->checkpoints();
    std::cout << "\ndrafter " << canonical << (checkpoints.empty() ? ": no model of its own\n" : "\n");
    for (const DraftCheckpoint& checkpoint : checkpoints) print_checkpoint(checkpoint, spec, settings);
  }
  return 0;
}

}  // namespace specmoe::cli
