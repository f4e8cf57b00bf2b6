#include "core/nn/model_loader.h"

#include <utility>

#include "core/nn/checkpoint.h"
#include "core/nn/device_loader.h"
#include "core/nn/kv_storage.h"
#include "core/nn/memory_table.h"
#include "core/nn/model_family.h"
#include "core/nn/tensor_map.h"
#include "core/nn/transformer.h"
#include "core/nn/weights.h"
#include "kernels/check.h"

namespace specmoe::nn {
namespace {

/// A smaller model runs on one thread: handing its activations from core to core at every barrier costs more than a
/// second thread saves. Measured on two cores: a drafter of 0.5 MB took 11.6 us a step on one thread and 17 us on two;
/// drafting with a head of 2 MB was 28 % of a run's time on one and 20 % on two. Bits do not change.
constexpr std::int64_t kSerialBytes = 1 << 20;

}  // namespace

std::shared_ptr<kernels::ThreadPool> fitting_pool(std::int64_t weight_bytes,
                                                  std::shared_ptr<kernels::ThreadPool> pool) {
  if (weight_bytes >= kSerialBytes || pool->size() == 1) return pool;
  return std::make_shared<kernels::ThreadPool>(1);
}

ModelInfo describe_model(const ModelSpec& spec, kernels::DType dtype, kernels::DType kv_dtype, bool tied) {
  const ModelSize size = model_size(spec, dtype, tied);
  ModelInfo info;
  info.name = spec.name;
  info.path = spec.path;
  info.architecture = spec.model_type;
  info.dtype = kernels::dtype_name(dtype);
  info.kv_dtype = kernels::dtype_name(kv_dtype);
  info.device = "cpu";
  info.vocab_size = spec.vocab_size;
  info.max_positions = spec.max_positions;
  info.hidden_size = spec.hidden_size;
  info.layers = static_cast<int>(spec.layers.size());
  for (const LayerSpec& layer : spec.layers) {
    if (!layer.ffn.router) continue;
    ++info.moe_layers;
    info.experts = layer.ffn.router->experts;
    info.experts_per_token = layer.ffn.router->experts_per_token;
  }
  info.parameters = size.parameters;
  info.active_parameters = size.active_parameters;
  info.weight_bytes = size.weight_bytes;
  info.active_weight_bytes = size.active_weight_bytes;
  info.expert_bytes = size.expert_bytes;
  info.kv_bytes_per_token = KvStorage::bytes(spec, kv_dtype, 1);
  info.stop_tokens = spec.stop_tokens;
  info.mask_token = spec.mask_token;
  info.block_size = spec.fusion ? spec.fusion->block_size : 0;
  return info;
}

std::shared_ptr<LanguageModel> load_model(const std::string& path, const LoadOptions& options) {
  const std::optional<int> cuda = cuda_device(options.device);
  const DeviceLoader load_on_device = cuda ? device_loader() : nullptr;
  SPECMOE_CHECK(options.dtype != kernels::DType::kFloat16,
                "dtype float16 is not supported; known: float32, bfloat16, int8");
  SPECMOE_CHECK(options.kv_dtype != kernels::DType::kFloat16,
                "kv_dtype float16 is not supported; known: float32, bfloat16, int8");
  ModelSpec spec = read_spec(path);
  const Checkpoint checkpoint(path);
  const ModelTensors tensors = map_tensors(spec, checkpoint);
  ModelInfo info = describe_model(spec, options.dtype, options.kv_dtype, tensors.tied);
  check_memory(info.weight_bytes, "model " + spec.name);
  auto pool = options.pool ? options.pool : std::make_shared<kernels::ThreadPool>(options.threads);
  SPECMOE_CHECK(!cuda || options.cache.empty(), "a cache of packed weights is for device cpu, not for ", options.device,
                "; leave it out");
  SPECMOE_CHECK(cuda || !options.fast_prefill, "fast_prefill is for models on cuda, got device ", options.device,
                "; leave it out");
  if (cuda) return load_on_device(std::move(spec), tensors, options, *cuda, *pool);
  const kernels::Backend backend = options.backend ? *options.backend : kernels::default_cpu_backend();
  SPECMOE_CHECK(kernels::backend_available(backend), "this machine cannot run ", kernels::backend_name(backend));
  info.instruction_set = kernels::backend_name(backend);
  std::optional<WeightCache> cache;
  if (!options.cache.empty()) cache.emplace(options.cache, checkpoint, options.dtype, options.notice);
  ReleasingProgress progress(checkpoint, options.progress);
  Weights weights =
      pack_weights(spec, tensors, options.dtype, backend, *pool, cache ? &*cache : nullptr, std::ref(progress));
  if (!options.keep_threads) pool = fitting_pool(info.weight_bytes, std::move(pool));
  return std::make_shared<Transformer>(std::move(spec), std::move(weights), std::move(info), options.kv_dtype, backend,
                                       std::move(pool));
}

ModelLoader draft_loader(LoadOptions options) {
  return [options = std::move(options)](const std::string& path, const std::string& dtype) {
    LoadOptions own = options;
    own.dtype = kernels::packed_dtype_from_name(dtype);
    return load_model(path, own);
  };
}

}  // namespace specmoe::nn
