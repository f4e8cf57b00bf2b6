// Whatever a config.json holds, it becomes a spec whose sizes can be computed, or a specmoe::Error of one line.
#include <cstdint>
#include <string_view>

#include "core/nn/memory_table.h"
#include "core/nn/model_family.h"
#include "core/nn/rope_table.h"
#include "tests/fuzz/targets/fuzzing.h"

using namespace specmoe::fuzzing;
using namespace specmoe::nn;

namespace {

constexpr int kWidestRope = 4096;

void measure(const ModelSpec& spec) {
  for (const auto dtype : {specmoe::kernels::DType::kBFloat16, specmoe::kernels::DType::kInt8}) {
    const ModelSize size = model_size(spec, dtype, spec.tied_embeddings);
    require(size.parameters >= size.active_parameters && size.weight_bytes >= size.active_weight_bytes);
    require(memory_table(spec, {.dtype = dtype, .context = spec.max_positions, .threads = 2}).total() > 0);
  }
  for (const bool long_context : {false, true}) {
    const auto& rope = spec.layers.front().attention.rope;
    if (rope && rope->rotary_dim < kWidestRope) rope_frequencies(*rope, long_context);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  works_or_is_refused([&] { measure(parse_config(ConfigReader::parse(text, "fuzz"))); });
  return 0;
}
