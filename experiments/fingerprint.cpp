#include "experiments/fingerprint.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <vector>

#include "kernels/check.h"

namespace specmoe::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kWhole = 1 << 20;  // bytes of a file that is read to its end
constexpr std::uint64_t kSamples = 256;    // of a larger one
constexpr std::uint64_t kSample = 4096;    // bytes

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::uint64_t size = fs::file_size(path);
  const std::uint64_t samples = size <= kWhole ? 1 : kSamples;
  std::string bytes(size <= kWhole ? size : kSample, '\0');
  std::string all = concat(path.filename().string(), ' ', size, '\n');
  for (std::uint64_t i = 0; i < samples; ++i) {
    file.seekg(static_cast<std::streamoff>((size - bytes.size()) / kSamples * i));
    SPECMOE_CHECK(file.read(bytes.data(), static_cast<std::streamsize>(bytes.size())), "cannot read '", path.string(),
                  "'");
    all += bytes;
  }
  return all;
}

std::vector<fs::path> model_files(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string kind = entry.path().extension().string();
    const bool wanted = kind == ".json" || kind == ".safetensors" || kind == ".gguf";
    if (wanted && entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

std::string digest(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const unsigned char byte : text) hash = (hash ^ byte) * 0x100000001b3ULL;
  constexpr const char* kDigits = "0123456789abcdef";
  std::string name;
  for (int shift = 60; shift >= 0; shift -= 4) name += kDigits[(hash >> shift) & 15];
  return name;
}

std::string fingerprint(const fs::path& path) {
  if (!fs::exists(path)) return "";
  if (!fs::is_directory(path)) return digest(contents(path));
  std::string digests;
  for (const fs::path& file : model_files(path)) digests += digest(contents(file));
  return digest(digests);
}

}  // namespace specmoe::cli
