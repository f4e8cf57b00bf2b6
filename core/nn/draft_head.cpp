#include "core/nn/draft_head.h"

#include <cstring>
#include <filesystem>

#include "core/nn/model_family.h"
#include "core/nn/model_loader.h"
#include "core/nn/transformer.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace {

constexpr std::int64_t kMaxTaps = 64;
constexpr const char* kTapsKey = "eagle_aux_hidden_state_layer_ids";

/// Checkpoints of EAGLE-3 have their only layer as "midlayer." or as "layers.0.".
void add_midlayer_names(TensorNames& names) {
  const std::string layer = "layers.{layer}.";
  for (TensorNames::Alternatives* alternatives :
       {&names.attention_norm, &names.query, &names.key, &names.value, &names.output, &names.ffn_norm, &names.gate,
        &names.up, &names.down, &names.query_norm, &names.key_norm, &names.embedding_norm}) {
    if (!alternatives->empty()) alternatives->push_back("midlayer." + alternatives->front().substr(layer.size()));
  }
}

/// The hidden rows that EAGLE-3 reads. SpecForge, in an object of its own, names the layers they leave; the others the
/// layers they enter, by default the third, the middle one and the last but two.
std::vector<int> parse_taps(const ConfigReader& config, int layers) {
  const auto theirs = config.object("eagle_config");
  if (theirs) {
    if (const auto left = theirs->integers(kTapsKey, 0, layers - 1)) {
      std::vector<int> taps(left->begin(), left->end());
      for (int& tap : taps) ++tap;
      return taps;
    }
  }
  if (const auto entered = config.integers(kTapsKey, 0, layers)) return {entered->begin(), entered->end()};
  constexpr int kLeastLayers = 7;  // fewer, and the three are not three
  SPECMOE_CHECK(layers >= kLeastLayers, config.where(kTapsKey), " is missing, and a target of ", layers,
                " layers has no default");
  return {2, layers / 2, layers - 3};
}

void parse_eagle(const ConfigReader& config, DraftHeadSpec& head, int target_layers) {
  ModelSpec& spec = head.model;
  FusionSpec& fusion = *spec.fusion;
  fusion.bias = config.boolean("bias", true);
  head.taps = {target_layers + 1};
  head.recycled = 1;
  spec.names.attention_norm.clear();
  spec.names.final_norm.clear();
  spec.names.ignored = {"embed_tokens.", "lm_head."};  // copies of the target's
}

void parse_eagle3(const ConfigReader& config, DraftHeadSpec& head, int target_layers) {
  ModelSpec& spec = head.model;
  FusionSpec& fusion = *spec.fusion;
  fusion.wide_attention = true;
  fusion.normed_embedding = true;
  head.taps = parse_taps(config, target_layers);
  SPECMOE_CHECK(!head.taps.empty() && head.taps.size() <= kMaxTaps, config.where(kTapsKey), " must name 1 to ",
                kMaxTaps, " layers, got ", head.taps.size());
  head.recycled = config.boolean("norm_output", false) ? 2 : 1;
  fusion.taps = static_cast<int>(head.taps.size());
  SPECMOE_CHECK(fusion.taps * fusion.tap_size != spec.hidden_size, config.where(kTapsKey),
                ": tapped rows are as wide as the head's own, which are told apart by that");
  fusion.draft_vocab_size = static_cast<int>(config.integer("draft_vocab_size", spec.vocab_size, 1, spec.vocab_size));
  if (config.has("speculators_model_type")) {
    SPECMOE_CHECK(config.has("norm_before_residual"), config.where("norm_before_residual"),
                  " is missing; readers of this format differ in what that means");
    fusion.normed_residual = config.boolean("norm_before_residual", false);
  }
  TensorNames& names = spec.names;
  names.embedding_norm = {"layers.{layer}.input_layernorm.weight"};
  names.attention_norm = {"layers.{layer}.hidden_norm.weight"};
  add_midlayer_names(names);
  names.ignored = {"d2t", "t2d"};
  if (config.boolean("norm_before_fc", false)) {
    fusion.feature_norm = FeatureNorm::kWhole;
    names.feature_norms = {{"input_norm.weight"}};
  } else if (config.boolean("fc_norm", false)) {
    fusion.feature_norm = FeatureNorm::kEach;
    for (int i = 0; i < fusion.taps; ++i) names.feature_norms.push_back({concat("fc_norm.", i, ".weight")});
  }
}

/// Layers of a block that see the text before it, and the block whole unless they are causal. Those with a window are,
/// if the configuration does not say otherwise.
void set_block_attention(const ConfigReader& config, ModelSpec& spec) {
  for (LayerSpec& layer : spec.layers) {
    AttentionSpec& attention = layer.attention;
    attention.whole_block = !config.boolean("is_causal", attention.window > 0);
    SPECMOE_CHECK(!attention.whole_block || attention.window == 0, config.where("is_causal"),
                  " = false is not supported for layers with a sliding_window");
  }
}

/// As z-lab writes them: what is special to the head lies in an object of its own, or beside it.
void parse_dflash(const ConfigReader& config, DraftHeadSpec& head, int target_layers) {
  const ConfigReader own = *config.object("dflash_config");
  const auto place = [&](const char* key) -> const ConfigReader& { return own.has(key) ? own : config; };
  for (const char* key : {"selector_rank", "conv_kernel_size"}) {
    SPECMOE_CHECK(!own.has(key), own.where(key), ": heads of DFlash 2 are not supported, those of DFlash are");
  }
  ModelSpec& spec = head.model;
  FusionSpec& fusion = *spec.fusion;
  constexpr std::int64_t kMostRows = 64;
  fusion.block_size = static_cast<int>(place("block_size").integer("block_size", 16, 2, kMostRows));
  const ConfigReader& of_taps = place("target_layer_ids");
  const auto left = of_taps.integers("target_layer_ids", 0, target_layers - 1);
  SPECMOE_CHECK(left && !left->empty() && left->size() <= kMaxTaps, of_taps.where("target_layer_ids"),
                " must name 1 to ", kMaxTaps, " layers of the target");
  // What leaves the last layer comes behind the final norm.
  for (const std::int64_t layer : *left)
    head.taps.push_back(static_cast<int>(layer) + (layer + 1 < target_layers ? 1 : 2));
  fusion.taps = static_cast<int>(head.taps.size());
  fusion.feature_norm = FeatureNorm::kAfter;
  const ConfigReader& of_mask = place("mask_token_id");
  SPECMOE_CHECK(of_mask.has("mask_token_id"), of_mask.where("mask_token_id"), " is missing");
  spec.mask_token = static_cast<TokenId>(of_mask.integer("mask_token_id", 0, 0, spec.vocab_size - 1));
  spec.embedding_scale = static_cast<float>(place("input_embedding_scale").number("input_embedding_scale", 1.0));
  spec.logit_scale = static_cast<float>(place("output_multiplier").number("output_multiplier", 1.0));
  const ConfigReader& of_cap = place("final_logit_softcapping");
  if (of_cap.has("final_logit_softcapping")) {
    spec.logit_softcap = static_cast<float>(of_cap.number("final_logit_softcapping", 0.0, 0.0));
  }
  set_block_attention(config, spec);
  spec.names.feature_norms = {{"hidden_norm.weight"}};
  spec.names.ignored = {"embed_tokens.", "lm_head."};  // copies of the target's
}

/// The layer behind the last one of a checkpoint of DeepSeek-V3's kind, which is a layer like the last one. A second
/// such module would predict the token after next; the first one, on what it handed on, does that too.
void parse_mtp(DraftHeadSpec& head) {
  ModelSpec& spec = head.model;
  FusionSpec& fusion = *spec.fusion;
  spec.first_layer = static_cast<int>(spec.layers.size());
  head.taps = {spec.first_layer + 1};
  head.recycled = 2;
  fusion.normed_embedding = true;
  fusion.feature_norm = FeatureNorm::kWhole;
  TensorNames& names = spec.names;
  const std::string module = concat("layers.", spec.first_layer, ".");
  names.fusion = {module + "eh_proj"};
  names.embedding_norm = {module + "enorm.weight"};
  names.feature_norms = {{module + "hnorm.weight"}};
  names.final_norm = {module + "shared_head.norm.weight"};
  // The target itself, copies of it, and further modules.
  std::erase(names.ignored, module);
  for (const char* name : {"embed_tokens.", "norm.", "lm_head."}) names.ignored.push_back(name);
  for (const char* name : {"embed_tokens.", "shared_head.head."}) names.ignored.push_back(module + name);
  for (int i = 0; i < spec.first_layer; ++i) names.ignored.push_back(concat("layers.", i, "."));
  spec.layers = {spec.layers.back()};
}

/// Sizes that a head shares with its target.
void check_sizes(const ConfigReader& config, const ModelSpec& spec, const ModelSpec& target) {
  SPECMOE_CHECK(spec.vocab_size == target.vocab_size, config.where("vocab_size"), " = ", spec.vocab_size,
                ": this head was made for another model, the target has ", target.vocab_size, " tokens");
  SPECMOE_CHECK(spec.hidden_size == target.hidden_size || spec.fusion->wide_attention, config.where("hidden_size"),
                " = ", spec.hidden_size, ": this head was made for another model, the target's is ",
                target.hidden_size);
}

}  // namespace

bool is_draft_head(const ConfigReader& config) {
  return config.contains("speculators_model_type") || config.contains("draft_vocab_size") || is_block_head(config);
}

bool is_block_head(const ConfigReader& config) { return config.has("dflash_config"); }

DraftHeadSpec parse_draft_head(const ConfigReader& config, const ModelSpec& target) {
  const std::string format = config.text("speculators_model_type", "eagle3");
  SPECMOE_CHECK(format == "eagle3", config.where("speculators_model_type"), " '", format,
                "' is not supported; known: eagle3");
  const auto layer = config.object("transformer_layer_config");
  const ConfigReader& shape = layer ? *layer : config;
  DraftHeadSpec head;
  head.model = parse_config(shape);
  ModelSpec& spec = head.model;
  spec.stop_tokens = target.stop_tokens;
  spec.fusion.emplace().tap_size = target.hidden_size;
  if (spec.prediction_layers > 0) {
    parse_mtp(head);
    check_sizes(shape, spec, target);
    SPECMOE_CHECK(spec.first_layer == static_cast<int>(target.layers.size()), shape.where("num_hidden_layers"), " = ",
                  spec.first_layer, ": this head was made for another model, the target has ", target.layers.size());
    return head;
  }
  const bool blocks = is_block_head(config);
  SPECMOE_CHECK((blocks || spec.layers.size() == 1) && !spec.layers[0].ffn.router && !spec.layers[0].attention.latent &&
                    spec.norm == NormKind::kRms && spec.block_order == BlockOrder::kPreNorm,
                shape.where("num_hidden_layers"),
                ": a head is one layer of llama's kind (of dflash several), or what checkpoints of deepseek_v3's kind ",
                "have behind their layers (num_nextn_predict_layers); got ", spec.layers.size(), " layers of ",
                spec.model_type);
  const int tap_size = parse_size(config, "target_hidden_size", target.hidden_size);
  SPECMOE_CHECK(tap_size == target.hidden_size, config.where("target_hidden_size"), " = ", tap_size,
                ": this head was made for another model, the target's hidden size is ", target.hidden_size);
  spec.names.fusion = {"fc"};
  const int target_layers = static_cast<int>(target.layers.size());
  if (blocks) {
    parse_dflash(config, head, target_layers);
  } else if (is_draft_head(config)) {
    parse_eagle3(config, head, target_layers);
  } else {
    parse_eagle(config, head, target_layers);
  }
  check_sizes(shape, spec, target);
  return head;
}

std::vector<TokenId> draft_vocabulary(const DraftHeadSpec& head, const Checkpoint& checkpoint) {
  const Tensor* offsets = checkpoint.find("d2t");
  const int count = head.model.head_rows();
  if (offsets == nullptr) {
    SPECMOE_CHECK(count == head.model.vocab_size, checkpoint.path(), ": the head knows ", count, " of ",
                  head.model.vocab_size, " tokens, and d2t, which says which, is missing");
    return {};
  }
  SPECMOE_CHECK(offsets->dtype == "I64" && offsets->shape == std::vector<std::int64_t>{count}, checkpoint.path(),
                ": d2t is ", describe(*offsets), ", expected I64 [", count, "]");
  std::vector<TokenId> tokens;
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t offset = 0;
    std::memcpy(&offset, offsets->data + i * static_cast<std::int64_t>(sizeof(offset)), sizeof(offset));
    const std::int64_t least = tokens.empty() ? 0 : tokens.back() + 1;
    SPECMOE_CHECK(offset >= least - i && offset < head.model.vocab_size - i, checkpoint.path(), ": d2t[", i,
                  "] = ", offset, " must lead to a token above the one before and below ", head.model.vocab_size);
    tokens.push_back(static_cast<TokenId>(i + offset));
  }
  return tokens;
}

DraftHeadSpec read_draft_head(const Checkpoint& checkpoint, const ModelSpec& target) {
  namespace fs = std::filesystem;
  const std::string& path = checkpoint.path();
  const fs::path config = fs::path(path) / "config.json";
  std::error_code ignored;
  SPECMOE_CHECK(fs::exists(config, ignored), "draft head '", path, "' has no config.json");
  DraftHeadSpec head = parse_draft_head(ConfigReader::read(config.string()), target);
  ModelSpec& spec = head.model;
  spec.name = fs::path(path).lexically_normal().filename().string();
  spec.tied_embeddings = !spec.fusion->wide_attention || checkpoint.find(spec.names.embedding[0]) == nullptr;
  SPECMOE_CHECK(!spec.tied_embeddings || spec.hidden_size == target.hidden_size, path, ": ", spec.names.embedding[0],
                " is missing, and the target's has ", target.hidden_size, " values a token, not ", spec.hidden_size);
  return head;
}

PackedDraftHead pack_draft_head(const std::string& path, const ModelSpec& target, kernels::DType dtype,
                                kernels::Backend backend, kernels::ThreadPool& pool) {
  const Checkpoint checkpoint(path);
  DraftHeadSpec head = read_draft_head(checkpoint, target);
  const ModelSpec& spec = head.model;
  Weights weights = pack_weights(spec, map_tensors(spec, checkpoint), dtype, backend, pool);
  if (spec.fusion->wide_attention) weights.fusion.token_of_draft = draft_vocabulary(head, checkpoint);
  return {std::move(head), std::move(weights)};
}

DraftHead Transformer::draft_head(const std::string& path) const {
  auto [head, weights] = pack_draft_head(path, spec_, weights_->dtype, backend_, *pool_);
  ModelSpec& spec = head.model;
  ModelInfo info = describe_model(spec, weights_->dtype, kv_, spec.tied_embeddings);
  info.instruction_set = info_.instruction_set;
  auto pool = pool_of_head(info.active_weight_bytes);
  auto model = std::make_shared<Transformer>(std::move(spec), std::move(weights), std::move(info), kv_, backend_,
                                             std::move(pool), weights_);
  return {std::move(model), std::move(head.taps), head.recycled};
}

}  // namespace specmoe::nn
