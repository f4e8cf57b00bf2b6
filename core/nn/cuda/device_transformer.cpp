#include "core/nn/cuda/device_transformer.h"

#include <algorithm>
#include <bit>

#include "core/logit_rows.h"
#include "core/nn/cuda/dense_products.h"
#include "core/nn/cuda/device_cache.h"
#include "core/nn/device_loader.h"
#include "core/nn/model_loader.h"
#include "kernels/check.h"

namespace specmoe::nn::cuda {

using kernels::Rows;
using kernels::cuda::DenseLinear;
using kernels::cuda::DeviceArray;
using kernels::cuda::DeviceInfo;
using kernels::cuda::Stream;

DeviceTransformer::DeviceTransformer(ModelSpec spec, const Weights& weights, ModelInfo info, int device, int dense_rows,
                                     kernels::DType kv_dtype)
    : spec_(std::move(spec)),
      info_(std::move(info)),
      kv_dtype_(kv_dtype),
      device_(device),
      stream_(std::make_shared<Stream>(device)),
      weights_(spec_, weights, kv_dtype, device, *stream_) {
  if (dense_rows == 0) return;
  dense_ = std::make_unique<DenseLinear>(dense_rows, dense_products(weights_.model()), *stream_);
}

std::unique_ptr<KVCache> DeviceTransformer::new_cache(int capacity, std::optional<int> text) const {
  return std::make_unique<DeviceCache>(spec_, kv_dtype_, capacity, this, text.value_or(capacity), device_, stream_);
}

void DeviceTransformer::forward(std::span<const RowBlock> blocks, ForwardResult& result) {
  pass_.check(spec_, this, blocks);
  SPECMOE_CHECK(result.taps.empty(), "forward: boundaries of a model are tapped on device cpu, not on ", info_.device);
  pass_.stage(blocks);
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
  fill_device_pass();
  DecodeStep& step = step_for(device_pass_);
  stream_->copy(device_ancestors_.data(), ancestors_.data(), ancestors_.size() * sizeof(ancestors_[0]));
  step.run(device_pass_);
  download(step, result);
  stream_->synchronize();
  take_experts(step, result);
}

void DeviceTransformer::fill_device_pass() {
  device_pass_.tokens = pass_.tokens;
  device_pass_.wanted = pass_.wanted;
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
    const std::uint64_t* masks = cache.ancestors(block.first_staged);
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

/// The step's buffers and recorded graphs stay until a pass is larger than any before.
DecodeStep& DeviceTransformer::step_for(const DevicePass& pass) {
  const auto grown = [](int have, std::size_t need) {
    return std::max(have, static_cast<int>(std::bit_ceil(static_cast<unsigned>(need))));
  };
  const DecodeStep::Limits have = step_ ? step_->limits() : DecodeStep::Limits{16, 1, 1024};
  const DecodeStep::Limits need = {grown(have.rows, pass.tokens.size()), grown(have.sequences, pass.sequences.size()),
                                   grown(have.positions, static_cast<std::size_t>(pass.longest))};
  if (step_ == nullptr || need != have) {
    step_.reset();  // two of them may be more than the device has
    step_ = std::make_unique<DecodeStep>(weights_.model(), need, *stream_, dense_.get());
  }
  return *step_;
}

/// The rows that were wanted, one behind the other.
void DeviceTransformer::copy_rows(Rows<float> from, float* to) {
  const std::size_t wanted = pass_.wanted.size();
  const auto row_bytes = static_cast<std::size_t>(from.cols) * sizeof(float);
  if (from.stride == from.cols) return stream_->copy(to, from.data, wanted * row_bytes);
  for (std::size_t i = 0; i < wanted; ++i) {
    stream_->copy(to + i * static_cast<std::size_t>(from.cols), from.row(static_cast<std::int64_t>(i)), row_bytes);
  }
}

std::shared_ptr<float> DeviceTransformer::keep_logits() {
  SPECMOE_CHECK(step_ != nullptr, "logits on ", info_.device, ": there was no pass yet");
  const auto kept =
      std::make_shared<DeviceArray<float>>(pass_.wanted.size() * static_cast<std::size_t>(spec_.vocab_size), device_);
  copy_rows(step_->logits(), kept->data());
  stream_->synchronize();
  return {kept, kept->data()};
}

void DeviceTransformer::download(const DecodeStep& step, ForwardResult& result) {
  const std::size_t wanted = pass_.wanted.size();
  if (result.want_logits) copy_rows(step.logits(), result.logits.data());
  stream_->copy(result.argmax.data(), step.argmax(), wanted * sizeof(TokenId));
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
  const Weights weights = pack_weights(spec, tensors, dtype, kernels::Backend::kScalar, pool);
  return std::make_shared<DeviceTransformer>(std::move(spec), weights, std::move(info), device, dense_rows,
                                             options.kv_dtype);
}

std::shared_ptr<float> last_logits(LanguageModel& model) {
  return dynamic_cast<DeviceTransformer&>(model).keep_logits();
}

const DeviceLoaderRegistration registration(load, last_logits);

}  // namespace
}  // namespace specmoe::nn::cuda
