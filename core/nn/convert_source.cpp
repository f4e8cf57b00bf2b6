#include "core/nn/convert_source.h"

#include <algorithm>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "core/nn/chat_template.h"
#include "core/nn/config_reader.h"
#include "core/nn/gguf_model.h"
#include "core/nn/gguf_tokenizer.h"
#include "core/nn/mapped_file.h"
#include "core/nn/model_family.h"
#include "core/nn/tensor_views.h"
#include "kernels/check.h"

namespace specmoe::nn {

using kernels::DType;
using kernels::WeightView;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

using Alternatives = TensorNames::Alternatives;

/// Fields of TensorNames whose entries are whole names, and those whose entries are stems.
const std::vector<Alternatives TensorNames::*> kWholeNames = {
    &TensorNames::embedding,           &TensorNames::final_norm,    &TensorNames::head,
    &TensorNames::attention_norm,      &TensorNames::ffn_norm,      &TensorNames::router,
    &TensorNames::attention_norm_bias, &TensorNames::ffn_norm_bias, &TensorNames::final_norm_bias,
    &TensorNames::head_bias,           &TensorNames::ffn_out_norm,  &TensorNames::attention_out_norm,
    &TensorNames::query_norm,          &TensorNames::key_norm,      &TensorNames::sinks,
    &TensorNames::query_down_norm,     &TensorNames::kv_down_norm,  &TensorNames::router_bias,
    &TensorNames::choice_bias,         &TensorNames::shared_scale,
};
const std::vector<Alternatives TensorNames::*> kStems = {
    &TensorNames::query,       &TensorNames::key,         &TensorNames::value,       &TensorNames::output,
    &TensorNames::gate,        &TensorNames::up,          &TensorNames::down,        &TensorNames::query_down,
    &TensorNames::query_up,    &TensorNames::kv_down,     &TensorNames::kv_up,       &TensorNames::expert_gate,
    &TensorNames::expert_up,   &TensorNames::expert_down, &TensorNames::shared_gate, &TensorNames::shared_up,
    &TensorNames::shared_down,
};

std::string with_number(std::string name, const std::string& mark, int number) {
  if (const auto at = name.find(mark); at != std::string::npos) name.replace(at, mark.size(), std::to_string(number));
  return name;
}

std::string filled(const std::string& name, int layer, int expert = 0) {
  return with_number(with_number(name, "{layer}", layer), "{expert}", expert);
}

/// "model." stands before every name on disk but the head's.
std::string on_disk(const std::string& name, int layer, int expert = 0) {
  return (name.starts_with("lm_head") ? "" : "model.") + filled(name, layer, expert);
}

/// What a family calls the tensors of a GGUF file, by what the file calls them.
class FamilyNames {
 public:
  FamilyNames(const TensorNames& from, const ModelSpec& family) {
    for (const auto field : kWholeNames) add(from.*field, family.names.*field, family, "");
    for (const auto field : kStems) {
      for (const char* suffix : {".weight", ".bias"}) add(from.*field, family.names.*field, family, suffix);
    }
  }

  /// Null for what the family has no name for.
  const std::string* find(const std::string& name) const {
    const auto found = names_.find(name);
    return found == names_.end() ? nullptr : &found->second;
  }

 private:
  void add(const Alternatives& from, const Alternatives& to, const ModelSpec& family, const std::string& suffix) {
    if (to.empty()) return;
    for (const std::string& name : from) {
      const int layers = name.find("{layer}") == std::string::npos ? 1 : static_cast<int>(family.layers.size());
      for (int layer = 0; layer < layers; ++layer) {
        const auto& router = family.layers[static_cast<std::size_t>(layer)].ffn.router;
        const bool one = name.find("{expert}") == std::string::npos;
        for (int e = 0; e < (one ? 1 : router ? router->experts : 0); ++e) {
          names_.emplace(filled(name, layer, e) + suffix, on_disk(to.front(), layer, e) + suffix);
        }
      }
    }
  }

  std::map<std::string, std::string> names_;
};

ModelSpec read_source(const std::string& path) {
  ModelSpec spec = read_spec(path);
  SPECMOE_CHECK(spec.quantization != Quantization::kInt8, path,
                ": is int8 already; convert the checkpoint that it was made of");
  return spec;
}

/// Matrices one under another, as a fused tensor has them: row r of the result is row `place(r).second` of matrix
/// `place(r).first`.
using Place = std::function<std::pair<std::int64_t, std::int64_t>(std::int64_t row)>;
WeightView stacked(std::vector<WeightView> parts, std::int64_t rows, Place place) {
  WeightView view;
  view.data = parts.front().data;
  view.rows = rows;
  view.cols = parts.front().cols;
  view.read_row = [parts = std::move(parts), place = std::move(place)](std::int64_t row, float* out) {
    const auto [part, line] = place(row);
    std::ranges::copy(parts[static_cast<std::size_t>(part)].row(line), out);
  };
  return view;
}

/// Where row `row` of fused gate and up matrices comes from: 2 e is the gate of expert e, 2 e + 1 its up.
Place gate_up_place(FusedLayout layout, std::int64_t width) {
  return [interleaved = layout == FusedLayout::kTransposedInterleaved, width](std::int64_t row) {
    const std::int64_t expert = row / (2 * width);
    const std::int64_t own = row % (2 * width);
    const std::int64_t is_up = interleaved ? own % 2 : own / width;
    return std::pair(2 * expert + is_up, interleaved ? own / 2 : own % width);
  };
}

/// A vector whose elements are those of `rows`, taken like rows.
WeightView fused_bias(std::vector<WeightView> parts, std::int64_t experts, std::int64_t width, Place place) {
  WeightView view;
  view.data = parts.front().data;
  view.rows = experts;
  view.cols = width;
  view.read_row = [parts = std::move(parts), width, place = std::move(place)](std::int64_t row, float* out) {
    for (std::int64_t i = 0; i < width; ++i) {
      const auto [part, element] = place(row * width + i);
      out[i] = parts[static_cast<std::size_t>(part)].element(0, element);
    }
  };
  return view;
}

/// Gemma's files hold weights with the one in them that the family adds.
WeightView without_one(const WeightView& norm) {
  WeightView view = norm;
  view.read_row = [norm](std::int64_t row, float* out) {
    std::ranges::transform(norm.row(row), out, [](float value) { return value - 1.0F; });
  };
  return view;
}

json folder_config(const fs::path& file) {
  const MappedFile bytes(file.string());
  json config = parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, file.string());
  if (config.contains("text_config") && config["text_config"].is_object()) {
    const std::string type = config["model_type"].get<std::string>() + "_text";
    config = config["text_config"];
    if (!config.contains("model_type")) config["model_type"] = type;
  }
  config.erase("quantization_config");
  for (const char* key : {"dtype", "torch_dtype"}) {
    if (config.contains(key)) config[key] = "bfloat16";
  }
  return config;
}
void write_text(const fs::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  SPECMOE_CHECK(file << text << std::flush, "cannot write ", path.string());
}

void copy_companions(const fs::path& source, const fs::path& folder) {
  for (const char* name :
       {"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
        "vocab.json", "merges.txt", "chat_template.jinja", "generation_config.json"}) {
    if (fs::exists(source / name)) fs::copy_file(source / name, folder / name);
  }
}

/// What a Hugging Face folder has in files, a GGUF file has in its metadata.
void unpack_companions(const GgufFile& source, const fs::path& folder) {
  if (has_tokenizer(source)) write_text(folder / "tokenizer.json", gguf_tokenizer(source).dump() + "\n");
  const auto chat = find_chat_template(source.path());
  if (!chat) return;
  const json settings = {{"chat_template", chat->text}, {"bos_token", chat->bos_token}, {"eos_token", chat->eos_token}};
  write_text(folder / "tokenizer_config.json", settings.dump(2) + "\n");
}

}  // namespace

ConversionSource::ConversionSource(const std::string& path)
    : path_(path),
      gguf_(find_gguf(path)),
      spec_(read_source(path)),
      checkpoint_(path),
      model_(map_tensors(spec_, checkpoint_)) {
  if (gguf_) take_family_names();
}

std::optional<fs::path> ConversionSource::config_file() const {
  if (gguf_) return std::nullopt;
  return fs::path(path_) / "config.json";
}

/// A tensor that is put together from others.
void ConversionSource::add(const std::string& name, int layer, const std::vector<std::int64_t>& shape,
                           const WeightView& view, bool by_inputs) {
  Tensor& tensor = made_.emplace_back();
  tensor.name = name;
  tensor.dtype = "F32";
  tensor.shape = shape;
  tensor.read_row = view.read_row;
  const bool matrices = shape.size() == 3;
  model_.stored.push_back({name, &tensor, layer, matrices ? TensorUse::kMatrix : TensorUse::kExact,
                           matrices ? shape[0] : 1, shape[shape.size() - 2], shape.back(), by_inputs, false, view});
}

/// Experts in one tensor, for families that have no other names.
void ConversionSource::fuse_experts(const ModelSpec& family, int layer) {
  const FfnSpec& ffn = family.layers[static_cast<std::size_t>(layer)].ffn;
  const TensorNames& names = family.names;
  const std::int64_t experts = ffn.router->experts;
  std::vector<WeightView> gate_up, down, gate_up_bias, down_bias;
  for (const ExpertTensors& expert : model_.layers[static_cast<std::size_t>(layer)].experts) {
    gate_up.insert(gate_up.end(), {expert.gate.weight, expert.up.weight});
    gate_up_bias.insert(gate_up_bias.end(), {expert.gate.bias, expert.up.bias});
    down.push_back(expert.down.weight);
    down_bias.push_back(expert.down.bias);
  }
  const std::int64_t hidden = family.hidden_size;
  const bool by_inputs = names.fused_layout != FusedLayout::kRows;
  const Place both = gate_up_place(names.fused_layout, ffn.width);
  const Place one = [hidden](std::int64_t row) { return std::pair(row / hidden, row % hidden); };
  add(on_disk(names.fused_gate_up.front(), layer), layer, {experts, 2 * ffn.width, hidden},
      stacked(std::move(gate_up), experts * 2 * ffn.width, both), by_inputs);
  add(on_disk(names.fused_down.front(), layer), layer, {experts, hidden, ffn.width},
      stacked(std::move(down), experts * hidden, one), by_inputs);
  if (!ffn.bias) return;
  add(on_disk(names.fused_gate_up_bias.front(), layer), layer, {experts, 2 * ffn.width},
      fused_bias(std::move(gate_up_bias), experts, 2 * ffn.width, both), false);
  add(on_disk(names.fused_down_bias.front(), layer), layer, {experts, hidden},
      fused_bias(std::move(down_bias), experts, hidden, one), false);
}

/// From a GGUF file to what the family has in a Hugging Face folder.
void ConversionSource::take_family_names() {
  const GgufFile file(*gguf_);
  const ModelSpec family =
      parse_config(ConfigReader::parse(gguf_config(file).dump(), *gguf_ + " (metadata as config.json)"));
  const FamilyNames names(spec_.names, family);
  std::vector<StoredTensor> kept;
  for (StoredTensor& tensor : model_.stored) {
    const std::string* name = names.find(tensor.name);
    if (name == nullptr) continue;  // an expert of a family that fuses them
    if (family.norm == NormKind::kRmsPlusOne && tensor.name.find("norm") != std::string::npos) {
      tensor.view = without_one(tensor.view);
      made_.push_back(*tensor.source);
      made_.back().read_row = tensor.view.read_row;
      tensor.source = &made_.back();
    }
    tensor.name = *name;
    kept.push_back(std::move(tensor));
  }
  model_.stored = std::move(kept);
  if (!family.names.expert_gate.empty()) return;
  for (int layer = 0; layer < static_cast<int>(family.layers.size()); ++layer) {
    if (family.layers[static_cast<std::size_t>(layer)].ffn.router) fuse_experts(family, layer);
  }
}

void ConversionSource::write_companions(const fs::path& folder, DType dtype) const {
  std::optional<GgufFile> file;
  if (gguf_) file.emplace(*gguf_);
  json config = file ? gguf_config(*file) : folder_config(fs::path(path_) / "config.json");
  if (dtype == DType::kInt8) config["quantization_config"] = {{"quant_method", kOwnQuantization}, {"weights", "int8"}};
  write_text(folder / "config.json", config.dump(2) + "\n");
  if (file) {
    unpack_companions(*file, folder);
  } else {
    copy_companions(path_, folder);
  }
}

}  // namespace specmoe::nn
