#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace specmoe::nn {

/// How GGUF stores the elements of a tensor: in blocks that lie one after another along a row.
struct GgmlType {
  std::uint32_t id;
  const char* name;    // "Q4_K"
  std::int64_t block;  // elements of a block
  std::int64_t block_bytes;
  void (*expand)(const std::byte* block, float* out);  // out[0, block) = its elements; the block need not be aligned
};

/// Null for a type that is not supported.
const GgmlType* find_ggml_type(std::uint32_t id);
/// The supported types: "F32, F16, ..."
std::string ggml_type_names();
/// What the format calls type `id`, supported or not: "IQ4_XS (23)".
std::string describe_ggml_type(std::uint32_t id);

/// out[0, cols) = the row that begins at `row`; cols is a multiple of type.block. The arithmetic is that of gguf-py, so
/// the values are equal to its values.
void expand_row(const GgmlType& type, const std::byte* row, std::int64_t cols, float* out);

}  // namespace specmoe::nn
