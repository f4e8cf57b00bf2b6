#include "tests/support/medusa_folder.h"

#include <unistd.h>

#include <fstream>
#include <span>
#include <vector>

#include "core/nn/safetensors_writer.h"
#include "kernels/check.h"
#include "tests/support/kernel_data.h"

namespace specmoe::test {

MedusaFolder::MedusaFolder(int hidden_size, float scale) {
  constexpr int kHeads = 3;
  static int count = 0;
  path_ = std::filesystem::temp_directory_path() / concat("specmoe_medusa_", getpid(), "_", count++);
  std::filesystem::create_directory(path_);
  std::ofstream(path_ / "config.json") << R"({"medusa_num_layers": 1})";
  std::vector<nn::NewTensor> tensors;
  for (int i = 0; i < kHeads; ++i) {
    for (const bool bias : {false, true}) {
      std::vector<std::int64_t> shape(bias ? 1 : 2, hidden_size);
      std::uint64_t bytes = sizeof(float);
      for (const std::int64_t size : shape) bytes *= static_cast<std::uint64_t>(size);
      tensors.push_back({concat(i, ".0.linear.", bias ? "bias" : "weight"), "F32", shape, bytes});
    }
  }
  nn::SafetensorsWriter writer((path_ / "medusa_lm_head.safetensors").string(), tensors, {});
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto count_of = static_cast<std::int64_t>(tensors[i].bytes / sizeof(float));
    const std::vector<float> values = kernels::random_floats(count_of, static_cast<std::uint32_t>(i), scale);
    writer.write(tensors[i].name, 0, std::as_bytes(std::span(values)));
  }
  writer.finish("");
}

}  // namespace specmoe::test
