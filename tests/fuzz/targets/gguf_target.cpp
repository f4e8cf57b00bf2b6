// Whatever a GGUF file holds: its tensors lie inside it, rows can be read, and it is a tokenizer or a specmoe::Error of
// one line. What its metadata say about the model is a configuration, which is fuzzed as such.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/nn/gguf_model.h"
#include "core/nn/gguf_tokenizer.h"
#include "tests/fuzz/targets/fuzzing.h"

using namespace specmoe::fuzzing;
using namespace specmoe::nn;

namespace {

constexpr std::int64_t kLongestRow = 4096;

/// The first and the last row, which touch both ends of the data.
void read_rows(const GgufTensor& tensor, std::span<const std::byte> file) {
  require(tensor.data >= file.data() && tensor.data + tensor.bytes <= file.data() + file.size());
  const std::int64_t cols = tensor.shape.back();
  if (cols > kLongestRow) return;
  std::vector<float> row(static_cast<std::size_t>(cols));
  const std::int64_t row_bytes = cols / tensor.type->block * tensor.type->block_bytes;
  expand_row(*tensor.type, tensor.data, cols, row.data());
  expand_row(*tensor.type, tensor.data + tensor.bytes - row_bytes, cols, row.data());
}

void read_rows(const Tensor& tensor) {
  if (!tensor.read_row || tensor.shape.back() > kLongestRow) return;
  std::vector<float> row(static_cast<std::size_t>(tensor.shape.back()));
  tensor.read_row(0, row.data());
  if (tensor.shape.size() > 1) tensor.read_row(tensor.shape.front() - 1, row.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const bool parsed = works_or_is_refused([&] {
    for (const GgufTensor& tensor : GgufContents::parse(bytes, "fuzz").tensors) read_rows(tensor, bytes);
  });
  if (!parsed) return 0;
  const MemoryFile memory(bytes);
  const GgufFile file(memory.path());
  works_or_is_refused([&] {
    for (const Tensor& tensor : gguf_tensors(file)) read_rows(tensor);
  });
  works_or_is_refused([&] { gguf_tokenizer(file).dump(); });
  return 0;
}
