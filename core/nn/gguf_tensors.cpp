#include <algorithm>
#include <map>

#include "core/nn/gguf_metadata.h"
#include "core/nn/gguf_model.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace {

Tensor plain(const GgufTensor& from) {
  Tensor tensor;
  tensor.name = from.name;
  tensor.dtype = from.type->name;
  tensor.shape = from.shape;
  tensor.end = from.bytes;
  tensor.data = from.data;
  // The gate of a shared expert is a matrix of one row.
  const bool one_row = from.shape.size() == 1 && from.name.ends_with(".ffn_gate_inp_shexp.weight");
  if (one_row) tensor.shape.insert(tensor.shape.begin(), 1);
  if (from.type->block == 1) return tensor;
  const std::int64_t cols = from.shape.back();
  tensor.read_row = [type = from.type, data = from.data, cols](std::int64_t row, float* out) {
    expand_row(*type, data + row * (cols / type->block * type->block_bytes), cols, out);
  };
  return tensor;
}

/// Element i of a head in a Hugging Face checkpoint is element 2 (i mod d/2) + i / (d/2) of that head in the file.
std::int64_t row_in_file(std::int64_t row, std::int64_t head_dim) {
  const std::int64_t half = head_dim / 2;
  const std::int64_t element = row % head_dim;
  return row - element + 2 * (element % half) + element / half;
}

Tensor in_rotary_order(const GgufTensor& from, std::int64_t heads, const std::string& what) {
  Tensor tensor = plain(from);
  const bool vector = from.shape.size() == 1;  // a bias
  const std::int64_t rows = vector ? from.shape.back() : from.shape.front();
  SPECMOE_CHECK(heads > 0 && rows % (2 * heads) == 0, what, ": ", describe(tensor), " ", from.name,
                " cannot be cut into ", heads, " heads of even size");
  const std::int64_t head_dim = rows / heads;
  const std::int64_t cols = from.shape.back();
  const std::int64_t row_bytes = cols / from.type->block * from.type->block_bytes;
  if (vector) {
    tensor.read_row = [type = from.type, data = from.data, cols, head_dim](std::int64_t, float* out) {
      std::vector<float> stored(static_cast<std::size_t>(cols));
      expand_row(*type, data, cols, stored.data());
      for (std::int64_t i = 0; i < cols; ++i) out[i] = stored[static_cast<std::size_t>(row_in_file(i, head_dim))];
    };
  } else {
    tensor.read_row = [type = from.type, data = from.data, cols, head_dim, row_bytes](std::int64_t row, float* out) {
      expand_row(*type, data + row_in_file(row, head_dim) * row_bytes, cols, out);
    };
  }
  return tensor;
}

/// [experts, rows, cols] as one tensor per expert.
void add_experts(const GgufTensor& stacked, std::vector<Tensor>& tensors) {
  const std::size_t dot = stacked.name.rfind('.');
  const std::size_t bytes = stacked.bytes / static_cast<std::size_t>(stacked.shape.front());
  for (std::int64_t e = 0; e < stacked.shape.front(); ++e) {
    GgufTensor expert = stacked;
    expert.name = stacked.name.substr(0, dot + 1) + std::to_string(e) + stacked.name.substr(dot);
    expert.shape.erase(expert.shape.begin());
    expert.data += static_cast<std::size_t>(e) * bytes;
    expert.bytes = bytes;
    tensors.push_back(plain(expert));
  }
}

}  // namespace

std::vector<Tensor> gguf_tensors(const GgufFile& file) {
  const GgufMetadata metadata(file);
  const std::int64_t heads = metadata.integer("attention.head_count", 0);
  const std::int64_t kv_heads = metadata.integer("attention.head_count_kv", heads);
  std::vector<Tensor> tensors;
  for (const GgufTensor& tensor : file.tensors()) {
    const std::string& name = tensor.name;
    const bool query = name.find(".attn_q.") != std::string::npos;
    const bool key = name.find(".attn_k.") != std::string::npos;
    if (name == "rope_freqs.weight") continue;  // read as configuration
    if (name.find("_exps.") != std::string::npos && tensor.shape.size() == 3) {
      add_experts(tensor, tensors);
    } else if (metadata.architecture().permuted && (query || key)) {
      tensors.push_back(in_rotary_order(tensor, query ? heads : kv_heads, file.path()));
    } else {
      tensors.push_back(plain(tensor));
    }
  }
  return tensors;
}

std::string gguf_storage(const GgufFile& file) {
  std::map<std::string, int> counts;
  for (const GgufTensor& tensor : file.tensors()) ++counts[tensor.type->name];
  std::vector<std::pair<int, std::string>> order;
  for (const auto& [name, count] : counts) order.emplace_back(-count, name);
  std::sort(order.begin(), order.end());
  std::string text;
  for (const auto& [count, name] : order) text += concat(text.empty() ? "" : ", ", name, " x ", -count);
  return text;
}

}  // namespace specmoe::nn
