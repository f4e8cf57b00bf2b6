#include <algorithm>
#include <atomic>
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

/// [experts, rows, cols], or biases [experts, rows], as one tensor per expert.
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

/// attn_k_b [heads, rank, nope] by rows: row j of a head is column j of its matrix. A thread keeps the head that it
/// read last, so that a quantised matrix is expanded once and not for every column.
class TurnedHeads {
 public:
  explicit TurnedHeads(const GgufTensor& from) : from_(from), id_(next_id()) {}

  void read(std::int64_t head, std::int64_t column, float* out) const {
    struct Kept {
      std::uint64_t id = 0;
      std::int64_t head = 0;
      std::vector<float> values;
    };
    static thread_local Kept kept;
    const std::int64_t rank = from_.shape[1];
    const std::int64_t cols = from_.shape[2];
    if (kept.id != id_ || kept.head != head) {
      const std::int64_t row_bytes = cols / from_.type->block * from_.type->block_bytes;
      kept.values.resize(static_cast<std::size_t>(rank * cols));
      for (std::int64_t r = 0; r < rank; ++r) {
        expand_row(*from_.type, from_.data + (head * rank + r) * row_bytes, cols, kept.values.data() + r * cols);
      }
      kept.id = id_;
      kept.head = head;
    }
    for (std::int64_t r = 0; r < rank; ++r) out[r] = kept.values[static_cast<std::size_t>(r * cols + column)];
  }

 private:
  static std::uint64_t next_id() {
    static std::atomic<std::uint64_t> last{0};
    return ++last;
  }

  GgufTensor from_;
  std::uint64_t id_;
};

/// kv_b_proj out of its two parts: for each head its nope rows, then its value rows, which are attn_v_b
/// [heads, value, rank].
Tensor joined_kv(const GgufTensor& key, const GgufTensor& value, const std::string& name, const std::string& what) {
  const bool fit = key.shape.size() == 3 && value.shape.size() == 3 && key.shape[0] == value.shape[0] &&
                   key.shape[1] == value.shape[2];
  SPECMOE_CHECK(fit, what, ": ", key.name, " [heads, rank, width] and ", value.name,
                " [heads, width, rank] do not fit together");
  const std::int64_t nope = key.shape[2];
  const std::int64_t rows = nope + value.shape[1];
  const std::int64_t rank = key.shape[1];
  Tensor tensor;
  tensor.name = name;
  tensor.dtype = value.type->name;
  tensor.shape = {key.shape[0] * rows, rank};
  tensor.end = key.bytes + value.bytes;
  tensor.data = key.data;
  tensor.read_row = [turned = TurnedHeads(key), value, nope, rows, rank](std::int64_t row, float* out) {
    const std::int64_t head = row / rows;
    const std::int64_t at = row % rows;
    if (at < nope) return turned.read(head, at, out);
    const std::int64_t row_bytes = rank / value.type->block * value.type->block_bytes;
    expand_row(*value.type, value.data + (head * (rows - nope) + at - nope) * row_bytes, rank, out);
  };
  return tensor;
}

/// Whether a tensor is one of the parts of kv_b_proj; the key's part adds the whole.
bool add_kv_part(const GgufFile& file, const GgufTensor& part, std::vector<Tensor>& tensors) {
  const std::string key_end = ".attn_k_b.weight";
  if (part.name.ends_with(".attn_v_b.weight")) return true;
  if (!part.name.ends_with(key_end)) return false;
  const std::string layer = part.name.substr(0, part.name.size() - key_end.size());
  const GgufTensor* value = file.tensor(layer + ".attn_v_b.weight");
  SPECMOE_CHECK(value != nullptr, file.path(), ": ", part.name, " has no ", layer, ".attn_v_b.weight beside it");
  tensors.push_back(joined_kv(part, *value, layer + ".attn_kv_b.weight", file.path()));
  return true;
}

/// Tensors that are read as configuration.
bool is_configuration(const std::string& name) {
  return name == "rope_freqs.weight" || name == "rope_factors_short.weight" || name == "rope_factors_long.weight";
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
    if (is_configuration(name) || add_kv_part(file, tensor, tensors)) continue;
    if (name.find("_exps.") != std::string::npos && tensor.shape.size() > 1) {
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
