#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/nn/gguf_quants.h"
#include "core/nn/mapped_file.h"

namespace specmoe::nn {

/// A value of the metadata. Integers of every width become int64, floats become double, arrays keep one kind of
/// element. Strings borrow from the file.
using GgufValue = std::variant<std::int64_t, double, bool, std::string_view, std::vector<std::int64_t>,
                               std::vector<double>, std::vector<std::string_view>>;

/// A tensor of a GGUF file. data points into the file.
struct GgufTensor {
  std::string name;
  const GgmlType* type = nullptr;
  std::vector<std::int64_t> shape;  // slowest dimension first, the reverse of what the file says
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
};

/// What a GGUF file says (version 2 or 3, little-endian). Nothing in it is believed unchecked: counts, lengths, types,
/// offsets and alignment are compared with the bytes that are there, and tensors must not overlap.
struct GgufContents {
  std::map<std::string, GgufValue, std::less<>> metadata;
  std::vector<GgufTensor> tensors;

  /// Throws Error; `what` names the file. The result borrows from `file`.
  static GgufContents parse(std::span<const std::byte> file, const std::string& what);
};

/// A mapped GGUF file.
class GgufFile {
 public:
  explicit GgufFile(const std::string& path);

  const std::string& path() const { return path_; }
  void release() const { file_.release(); }
  const std::vector<GgufTensor>& tensors() const { return contents_.tensors; }
  const GgufTensor* tensor(std::string_view name) const;

  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return contents_.metadata; }
  /// The value of a key, null when it is absent. Throws Error when it has another type.
  const std::int64_t* integer(std::string_view key) const;
  const bool* boolean(std::string_view key) const;
  const std::string_view* text(std::string_view key) const;
  const std::vector<std::int64_t>* integers(std::string_view key) const;
  const std::vector<double>* numbers(std::string_view key) const;
  const std::vector<std::string_view>* texts(std::string_view key) const;

 private:
  template <class T>
  const T* get(std::string_view key, const char* wanted) const;

  std::string path_;
  MappedFile file_;
  GgufContents contents_;
};

}  // namespace specmoe::nn
