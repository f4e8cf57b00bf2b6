#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/nn/mapped_file.h"

namespace specmoe::nn {

/// One tensor of a checkpoint. data points into the mapped file and need not be aligned.
struct Tensor {
  std::string name;   // as in the file
  std::string dtype;  // "F32", "BF16", ...
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  // byte range relative to the end of the header
  std::uint64_t end = 0;
  const std::byte* data = nullptr;
  /// Set when data is not the elements in order (GGUF): out[0, last dimension) = a row as float32.
  std::function<void(std::int64_t row, float* out)> read_row;
};

/// "BF16 [8, 24, 64]"
std::string describe(const Tensor& tensor);

/// Checks a header against the number of data bytes behind it: known dtypes, ranges without overlap or hole, sizes that
/// match the shapes, no name twice. Throws Error; `what` names the file.
std::vector<Tensor> parse_safetensors_header(std::string_view header, std::uint64_t data_bytes,
                                             const std::string& what);

/// A mapped safetensors file.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);
  const std::vector<Tensor>& tensors() const { return tensors_; }
  void release() const { file_.release(); }

 private:
  MappedFile file_;
  std::vector<Tensor> tensors_;
};

}  // namespace specmoe::nn
