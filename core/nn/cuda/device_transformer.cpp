#include "core/nn/cuda/device_transformer.h"

#include <algorithm>
#include <bit>

#include "core/logit_rows.h"
#include "core/nn/cuda/dense_products.h"
#include "core/nn/cuda/device_cache.h"
#include "core/nn/cuda/device_medusa_heads.h"
#include "core/nn/device_loader.h"
#include "core/nn/draft_head.h"
#include "core/nn/model_loader.h"
#include "core/nn/model_part.h"
#include "kernels/check.h"

namespace specmoe::nn::cuda {

using kernels::Rows;
using kernels::cuda::DenseLinear;
using kernels::cuda::DeviceArray;
using kernels::cuda::DeviceInfo;
using kernels::cuda::Stream;

DeviceTransformer::DeviceTransformer(ModelSpec spec, std::shared_ptr<const DeviceWeights> weights, ModelInfo info,
                                     int device, kernels::DType kv_dtype, int dense_rows, int threads)
    : DeviceTransformer(std::move(spec), weights, weights->model(), std::move(info), device, kv_dtype) {
  threads_ = threads;
  if (dense_rows > 0) dense_ = std::make_unique<DenseLinear>(dense_rows, dense_products(model_), *stream_);
}

DeviceTransformer::DeviceTransformer(ModelSpec spec, std::shared_ptr<const DeviceWeights> weights, DeviceModel model,
                                     ModelInfo info, int device, kernels::DType kv_dtype)
    : spec_(std::move(spec)),
      info_(std::move(info)),
      kv_dtype_(kv_dtype),
      device_(device),
      stream_(std::make_shared<Stream>(device)),
      weights_(std::move(weights)),
      model_(std::move(model)) {}

std::unique_ptr<KVCache> DeviceTransformer::new_cache(int capacity, std::optional<int> text) const {
  return std::make_unique<DeviceCache>(spec_, kv_dtype_, capacity, this, text.value_or(capacity), device_, stream_);
}

void DeviceTransformer::forward(std::span<const RowBlock> blocks, ForwardResult& result) {
  pass_.check(spec_, this, blocks, result.taps);
  pass_.stage(blocks);
  if (sees_whole_blocks()) pass_.mask_whole_blocks();
  pass_.size_result(spec_, result);
  if (pass_.rows() == 0) return;
  try {
    run(result);
  } catch (...) {
    for (const RowBlock& block : blocks) block.cache->truncate(block.cache->committed());
    throw;
  }
}

void DeviceTransformer::run(ForwardResult& result) {
  fill_device_pass(result);
  DecodeStep& step = step_for(device_pass_);
  stream_->copy(device_ancestors_.data(), ancestors_.data(), ancestors_.size() * sizeof(ancestors_[0]));
  step.run(device_pass_);
  download(step, result);
  stream_->synchronize();
  take_experts(step, result);
}

void DeviceTransformer::fill_device_pass(const ForwardResult& result) {
  device_pass_.tokens = pass_.tokens;
  device_pass_.wanted = pass_.wanted;
  device_pass_.taps = result.taps;
  if (spec_.fusion) fill_features();
  device_pass_.rows.clear();
  device_pass_.sequences.clear();
  device_pass_.longest = 1 + *std::max_element(pass_.positions.begin(), pass_.positions.end());
  ancestors_.clear();
  std::vector<std::size_t> first_word;
  for (const Pass::Block& block : pass_.blocks) {
    const auto& cache = static_cast<const DeviceCache&>(*block.cache);
    const auto sequence = static_cast<std::int32_t>(device_pass_.sequences.size());
    for (int i = 0; i < block.rows; ++i) {
      device_pass_.rows.push_back({sequence, cache.committed() + block.first_staged + i,
                                   pass_.positions[static_cast<std::size_t>(block.first_row + i)], i});
    }
    first_word.push_back(ancestors_.size());
    const std::uint64_t* masks =
        sees_whole_blocks() ? pass_.whole_masks.data() + block.whole_mask : cache.ancestors(block.first_staged);
    ancestors_.insert(ancestors_.end(), masks, masks + static_cast<std::ptrdiff_t>(block.rows) * cache.words());
    device_pass_.sequences.push_back(
        {cache.keys(), cache.values(), cache.capacity(), cache.committed(), cache.words(), nullptr, cache.text()});
  }
  if (device_ancestors_.size() < ancestors_.size()) {
    device_ancestors_ = DeviceArray<std::uint64_t>(std::bit_ceil(ancestors_.size()), device_);
  }
  for (std::size_t b = 0; b < first_word.size(); ++b) {
    device_pass_.sequences[b].ancestors = device_ancestors_.data() + first_word[b];
  }
}

void DeviceTransformer::fill_features() {
  device_pass_.features.clear();
  device_pass_.handed_on.clear();
  if (!pass_.has_features()) return;
  const auto cols = static_cast<std::size_t>(model_.feature_cols());
  device_pass_.features.assign(pass_.tokens.size() * cols, 0.0F);
  float* to = device_pass_.features.data();
  for (const Pass::Block& block : pass_.blocks) {
    const bool handed_on = block.features.cols == spec_.hidden_size;
    device_pass_.handed_on.insert(device_pass_.handed_on.end(), static_cast<std::size_t>(block.rows), handed_on);
    for (int i = 0; i < block.rows; ++i, to += cols) std::copy_n(block.features.row(i), block.features.cols, to);
  }
}

/// The step's buffers and recorded graphs stay until a pass is larger than any before.
DecodeStep& DeviceTransformer::step_for(const DevicePass& pass) {
  const auto grown = [](int have, std::size_t need) {
    return std::max(have, static_cast<int>(std::bit_ceil(static_cast<unsigned>(need))));
  };
  const DecodeStep::Limits have = step_ ? step_->limits() : DecodeStep::Limits{16, 1, 1024};
  const DecodeStep::Limits need = {grown(have.rows, pass.tokens.size()), grown(have.sequences, pass.sequences.size()),
                                   grown(have.positions, static_cast<std::size_t>(pass.longest)),
                                   std::max(have.taps, static_cast<int>(pass.taps.size()))};
  if (step_ == nullptr || need != have) {
    step_.reset();  // two of them may be more than the device has
    step_ = std::make_unique<DecodeStep>(model_, need, *stream_, dense_.get());
  }
  return *step_;
}

/// On the device, of the rows that were wanted.
Rows<float> DeviceTransformer::wanted_logits() const {
  const Rows<float> all = step_->logits();
  return {all.data, static_cast<std::int64_t>(pass_.wanted.size()), all.cols, all.stride};
}

std::shared_ptr<float> DeviceTransformer::keep_logits() {
  SPECMOE_CHECK(step_ != nullptr, "logits on ", info_.device, ": there was no pass yet");
  const auto kept =
      std::make_shared<DeviceArray<float>>(pass_.wanted.size() * static_cast<std::size_t>(spec_.vocab_size), device_);
  const Rows<float> logits = wanted_logits();
  copy_rows(logits, kernels::contiguous(kept->data(), logits.rows, logits.cols), *stream_);
  stream_->synchronize();
  return {kept, kept->data()};
}

void DeviceTransformer::download(const DecodeStep& step, ForwardResult& result) {
  const auto to_host = [this](Rows<const float> from, std::vector<float>& to) {
    copy_rows(from, kernels::contiguous(to.data(), from.rows, from.cols), *stream_);
  };
  if (result.want_logits) to_host(wanted_logits(), result.logits);
  if (!result.taps.empty()) to_host(step.tapped(), result.tapped);
  stream_->copy(result.argmax.data(), step.argmax(), result.argmax.size() * sizeof(TokenId));
  experts_.resize(result.experts.empty() ? 0 : step.all_experts().size());
  stream_->copy(experts_.data(), step.all_experts().data(), experts_.size() * sizeof(experts_[0]));
}

/// The layers' choices one behind another, of the rows that there are.
void DeviceTransformer::take_experts(const DecodeStep& step, ForwardResult& result) const {
  auto to = result.experts.begin();
  for (std::size_t i = 0; i < spec_.layers.size() && !result.experts.empty(); ++i) {
    const auto& router = spec_.layers[i].ffn.router;
    if (!router) continue;
    const std::size_t pairs = pass_.tokens.size() * static_cast<std::size_t>(router->experts_per_token);
    to =
        std::copy_n(experts_.begin() + static_cast<std::ptrdiff_t>(step.expert_offset(static_cast<int>(i))), pairs, to);
  }
}

/// Of a model made of this one. It does not read prompts by cuBLASLt, which this one's instruction set may name.
ModelInfo DeviceTransformer::describe(const ModelSpec& spec, bool tied) const {
  ModelInfo info = describe_model(spec, dtype(), kv_dtype_, tied);
  info.device = info_.device;
  info.instruction_set = info_.instruction_set.substr(0, info_.instruction_set.find(','));
  return info;
}

std::shared_ptr<LanguageModel> DeviceTransformer::partial(const ModelPart& part) const {
  auto [spec, layers] = part_of(spec_, part);
  DeviceModel model = part_of(model_, spec, layers);
  ModelInfo info = describe(spec, model_.embedding == nullptr);
  return std::shared_ptr<LanguageModel>(
      new DeviceTransformer(std::move(spec), weights_, std::move(model), std::move(info), device_, kv_dtype_));
}

DraftHead DeviceTransformer::draft_head(const std::string& path) const {
  kernels::ThreadPool pool(threads_);
  auto [head, packed] = pack_draft_head(path, spec_, dtype(), kernels::Backend::kScalar, pool);
  ModelSpec& spec = head.model;
  for (const LayerSpec& layer : spec.layers) {
    SPECMOE_CHECK(layer.attention.whole_block == spec.layers[0].attention.whole_block, "draft head '", path,
                  "': blocks whose layers are partly causal (sliding_attention) are for device cpu, not for ",
                  info_.device);
  }
  check_sizes(spec);
  check_device_memory(device_weight_table(spec, dtype(), spec.tied_embeddings), spec.name, info_.device,
                      kernels::cuda::device_info(device_));
  ModelInfo info = describe(spec, spec.tied_embeddings);
  auto weights = std::make_shared<const DeviceWeights>(spec, packed, kv_dtype_, device_, weights_);
  auto model =
      std::make_shared<DeviceTransformer>(std::move(spec), std::move(weights), std::move(info), device_, kv_dtype_);
  return {std::move(model), std::move(head.taps), head.recycled};
}

std::shared_ptr<MedusaHeads> DeviceTransformer::medusa_heads(const std::string& path) const {
  kernels::ThreadPool pool(threads_);
  const PackedMedusa packed = pack_medusa_heads(path, spec_, dtype(), kernels::Backend::kScalar, pool);
  MemoryTable table;
  table.add("heads", packed.spec.weight_bytes(dtype()));
  table.add("uploading", static_cast<std::int64_t>(kernels::cuda::PanelUpload::kBytes));
  check_device_memory(table, packed.spec.name, info_.device, kernels::cuda::device_info(device_));
  return std::make_shared<DeviceMedusaHeads>(packed.heads, weights_, device_);
}

namespace {

std::shared_ptr<LanguageModel> load(ModelSpec spec, const ModelTensors& tensors, const LoadOptions& options, int device,
                                    kernels::ThreadPool& pool) {
  const kernels::DType dtype = options.dtype;
  const DeviceInfo there = kernels::cuda::device_info(device);
  const std::string name = concat("cuda:", device);
  check_sizes(spec);
  SPECMOE_CHECK(dtype == kernels::DType::kFloat32 || dtype == kernels::DType::kBFloat16, "dtype ",
                kernels::dtype_name(dtype), " is not supported on cuda; known: float32, bfloat16");
  SPECMOE_CHECK(options.kv_dtype == kernels::DType::kFloat32 || options.kv_dtype == kernels::DType::kBFloat16,
                "kv_dtype ", kernels::dtype_name(options.kv_dtype),
                " is not supported on cuda; known: float32, bfloat16");
  const int dense_rows = options.fast_prefill ? kPrefillRows : 0;
  MemoryTable table = device_weight_table(spec, dtype, tensors.tied);
  if (dense_rows > 0) {
    table.add("prompts by cuBLASLt", DenseLinear::device_bytes(dense_rows, dense_products(spec, dtype)));
  }
  check_device_memory(table, spec.name, name, there);
  ModelInfo info = describe_model(spec, dtype, options.kv_dtype, tensors.tied);
  info.device = name;
  info.instruction_set = concat("sm_", there.capability, options.fast_prefill ? ", prompts by cuBLASLt" : "");
  const Weights packed = pack_weights(spec, tensors, dtype, kernels::Backend::kScalar, pool);
  auto weights = std::make_shared<const DeviceWeights>(spec, packed, options.kv_dtype, device);
  return std::make_shared<DeviceTransformer>(std::move(spec), std::move(weights), std::move(info), device,
                                             options.kv_dtype, dense_rows, pool.size());
}

std::shared_ptr<float> last_logits(LanguageModel& model) {
  return dynamic_cast<DeviceTransformer&>(model).keep_logits();
}

const DeviceLoaderRegistration registration(load, last_logits);

}  // namespace
}  // namespace specmoe::nn::cuda
