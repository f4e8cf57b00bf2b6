#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/nn/job_list.h"
#include "kernels/packed_matrix.h"
#include "kernels/thread_pool.h"

namespace specmoe::nn {

/// What rounding did to the elements of a tensor.
struct TensorRounding {
  std::string name;
  int layer = -1;                 // -1: of no layer
  double squared_source = 0;      // sum of squares
  double squared_difference = 0;  // of rounded - source
  double largest_difference = 0;

  void add(const TensorRounding& more);
  /// |rounded - source| / |source|, Euclidean norms.
  double relative() const;
};

struct Conversion {
  std::vector<TensorRounding> tensors;               // that were rounded, in the model's order
  std::map<std::string, std::string> source_sha256;  // file name: hash
  std::string data_sha256;                           // of the new tensors
  std::int64_t source_bytes = 0;                     // of files with tensors
  std::int64_t bytes = 0;
};

/// Bytes of memory that convert_checkpoint() holds at a time.
std::int64_t conversion_bytes(const std::string& source, kernels::DType dtype, int threads);

/// Writes the model `source`, a Hugging Face folder or a GGUF file, as a checkpoint of `dtype`, tensor by tensor, into
/// the existing folder `folder`.
///
/// kBFloat16  matrices in bfloat16 (float8 and 4-bit experts expanded), laid out as transformers has them
/// kInt8      matrices in int8 with a float32 NAME_scale per output, fused experts as [experts, outputs, inputs], and
///            "quantization_config" in config.json that says so; embedding tables in bfloat16
/// Vectors and routers stay as they are. Loaded in `dtype`, the weights have the bits that the source's would have.
/// Of a model that sees images too only the language part is written. Tokenizer and generation files are copied; from
/// a GGUF file, whose tensors take the names and places that transformers has for them, they are made.
/// throws     Error for an int8 source, for values that are not finite
Conversion convert_checkpoint(const std::string& source, const std::string& folder, kernels::DType dtype,
                              kernels::ThreadPool& pool, const WorkProgress& progress = {});

}  // namespace specmoe::nn
