#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/drafter.h"
#include "core/language_model.h"
#include "core/nn/job_list.h"
#include "core/nn/model_spec.h"
#include "kernels/backend.h"
#include "kernels/packed_matrix.h"
#include "kernels/thread_pool.h"

namespace specmoe::nn {

struct LoadOptions {
  kernels::DType dtype = kernels::DType::kBFloat16;    // of the packed weights
  kernels::DType kv_dtype = kernels::DType::kFloat32;  // of keys and values in the caches: float32, bfloat16 or int8
  std::string device = "cpu";                 // or "cuda", "cuda:1"; on a device threads only pack, backend is unused
  bool fast_prefill = false;                  // on a device: whole chunks of a prompt by cuBLASLt, with other last bits
  int threads = 0;                            // 0: one per usable core; ignored when pool is set
  std::shared_ptr<kernels::ThreadPool> pool;  // shared by target and drafter
  bool keep_threads = false;                  // for small models too, which are faster on one thread and else get one
  std::optional<kernels::Backend> backend;    // nothing: the best this machine has
  std::string cache;                          // folder where packed weights are kept (WeightCache); empty: nowhere
  std::function<void(const std::string&)> notice;  // is told what a user should know of, a line each
  WorkProgress progress;                           // of packing
};

/// Opens a Hugging Face folder or a GGUF file. Throws Error when anything in it is missing, extra, mis-shaped or not
/// supported.
std::shared_ptr<LanguageModel> load_model(const std::string& path, const LoadOptions& options);

/// What drafters open their checkpoints with: these options, but the dtype that the drafter asks for.
ModelLoader draft_loader(LoadOptions options);

/// `pool`, or a team of one for packed weights so few that one thread is faster; bits do not change.
std::shared_ptr<kernels::ThreadPool> fitting_pool(std::int64_t weight_bytes, std::shared_ptr<kernels::ThreadPool> pool);

/// What load_model() would say about a model, from its spec alone; instruction_set is left empty.
///
/// tied  whether the head is the embedding; before loading, the spec's own flag
ModelInfo describe_model(const ModelSpec& spec, kernels::DType dtype, kernels::DType kv_dtype, bool tied);

}  // namespace specmoe::nn
