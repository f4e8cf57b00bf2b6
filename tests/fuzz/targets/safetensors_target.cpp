// Whatever a safetensors file holds, the bytes of its tensors can be read, or it is a specmoe::Error of one line.
#include <cstdint>

#include "core/nn/safetensors.h"
#include "tests/fuzz/targets/fuzzing.h"

using namespace specmoe::fuzzing;
using namespace specmoe::nn;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const MemoryFile memory(std::as_bytes(std::span(data, size)));
  works_or_is_refused([&] {
    const SafetensorsFile file(memory.path());
    int sum = 0;
    for (const Tensor& tensor : file.tensors()) {
      if (tensor.begin == tensor.end) continue;
      sum += std::to_integer<int>(tensor.data[0]) + std::to_integer<int>(tensor.data[tensor.end - tensor.begin - 1]);
    }
    require(sum >= 0);
  });
  return 0;
}
