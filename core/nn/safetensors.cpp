#include "core/nn/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/nn/config_reader.h"
#include "kernels/check.h"

namespace specmoe::nn {

using nlohmann::json;

namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference reader
constexpr std::uint64_t kLengthBytes = 8;

struct DTypeBits {
  const char* name;
  std::uint64_t bits;
};
constexpr std::array kDTypes = {
    DTypeBits{"BOOL", 8},    DTypeBits{"U8", 8},      DTypeBits{"I8", 8},          DTypeBits{"F8_E5M2", 8},
    DTypeBits{"F8_E4M3", 8}, DTypeBits{"F8_E8M0", 8}, DTypeBits{"F8_E4M3FNUZ", 8}, DTypeBits{"F8_E5M2FNUZ", 8},
    DTypeBits{"I16", 16},    DTypeBits{"U16", 16},    DTypeBits{"F16", 16},        DTypeBits{"BF16", 16},
    DTypeBits{"I32", 32},    DTypeBits{"U32", 32},    DTypeBits{"F32", 32},        DTypeBits{"I64", 64},
    DTypeBits{"U64", 64},    DTypeBits{"F64", 64},    DTypeBits{"C64", 64},        DTypeBits{"F4", 4},
    DTypeBits{"F6_E2M3", 6}, DTypeBits{"F6_E3M2", 6},
};

std::uint64_t unsigned_number(const json& value, const std::string& what, const std::string& name) {
  SPECMOE_CHECK(value.is_number_unsigned(), what, ": tensor ", name, " has a shape or offset that is not a count");
  return value.get<std::uint64_t>();
}

/// Bytes of `shape` elements of `bits` bits; throws when the product overflows.
std::uint64_t tensor_bytes(const Tensor& tensor, std::uint64_t bits, const std::string& what) {
  std::uint64_t total = bits;
  for (const std::int64_t size : tensor.shape) {
    SPECMOE_CHECK(!__builtin_mul_overflow(total, static_cast<std::uint64_t>(size), &total), what, ": tensor ",
                  tensor.name, " is larger than any memory");
  }
  SPECMOE_CHECK(total % 8 == 0, what, ": tensor ", tensor.name, " does not fill whole bytes");
  return total / 8;
}

Tensor parse_entry(const std::string& name, const json& entry, const std::string& what) {
  SPECMOE_CHECK(entry.is_object() && entry.contains("dtype") && entry["dtype"].is_string() && entry.contains("shape") &&
                    entry["shape"].is_array() && entry.contains("data_offsets") && entry["data_offsets"].is_array() &&
                    entry["data_offsets"].size() == 2,
                what, ": tensor ", name, " needs dtype, shape and two data_offsets");
  Tensor tensor;
  tensor.name = name;
  tensor.dtype = entry["dtype"].get<std::string>();
  for (const json& size : entry["shape"]) {
    const std::uint64_t count = unsigned_number(size, what, name);
    SPECMOE_CHECK(count <= INT64_MAX, what, ": tensor ", name, " is larger than any memory");
    tensor.shape.push_back(static_cast<std::int64_t>(count));
  }
  tensor.begin = unsigned_number(entry["data_offsets"][0], what, name);
  tensor.end = unsigned_number(entry["data_offsets"][1], what, name);
  return tensor;
}

void check_metadata(const json& metadata, const std::string& what) {
  SPECMOE_CHECK(metadata.is_object(), what, ": __metadata__ must be an object of strings");
  for (const auto& [key, value] : metadata.items()) {
    SPECMOE_CHECK(value.is_string(), what, ": __metadata__ must be an object of strings");
  }
}

/// Sorted by offset, tensors must tile the data exactly.
void check_ranges(std::vector<Tensor>& tensors, std::uint64_t data_bytes, const std::string& what) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const Tensor& a, const Tensor& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::uint64_t expected = 0;
  for (const Tensor& tensor : tensors) {
    SPECMOE_CHECK(tensor.begin == expected && tensor.end >= tensor.begin, what, ": tensor ", tensor.name,
                  " lies at bytes ", tensor.begin, " to ", tensor.end, ", expected it to start at ", expected,
                  tensor.begin < expected ? " (tensors overlap)" : " (hole between tensors)");
    const auto* dtype = std::find_if(kDTypes.begin(), kDTypes.end(),
                                     [&](const DTypeBits& known) { return tensor.dtype == known.name; });
    SPECMOE_CHECK(dtype != kDTypes.end(), what, ": tensor ", tensor.name, " has unknown dtype ",
                  json(tensor.dtype).dump());
    const std::uint64_t bytes = tensor_bytes(tensor, dtype->bits, what);
    SPECMOE_CHECK(bytes == tensor.end - tensor.begin, what, ": tensor ", tensor.name, " ", describe(tensor), " needs ",
                  bytes, " bytes, got ", tensor.end - tensor.begin);
    expected = tensor.end;
  }
  SPECMOE_CHECK(expected == data_bytes, what, ": header describes ", expected, " data bytes, file has ", data_bytes,
                expected > data_bytes ? " (truncated: copy it again)" : " (trailing bytes)");
}

}  // namespace

std::string describe(const Tensor& tensor) {
  std::string text = tensor.dtype + " [";
  for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(tensor.shape[i]);
  }
  return text + "]";
}

std::vector<Tensor> parse_safetensors_header(std::string_view header, std::uint64_t data_bytes,
                                             const std::string& what) {
  const json root = parse_json(header, what, 3);
  SPECMOE_CHECK(root.is_object(), what, ": header must be a JSON object");
  std::vector<Tensor> tensors;
  for (const auto& [name, entry] : root.items()) {
    if (name == "__metadata__") {
      check_metadata(entry, what);
    } else {
      tensors.push_back(parse_entry(name, entry, what));
    }
  }
  check_ranges(tensors, data_bytes, what);
  return tensors;
}

SafetensorsFile::SafetensorsFile(const std::string& path) : file_(path) {
  SPECMOE_CHECK(file_.size() >= kLengthBytes, path, ": ", file_.size(), " bytes are too few for a safetensors file");
  std::uint64_t header_bytes = 0;  // little-endian in the file, as on every machine we build for
  std::memcpy(&header_bytes, file_.data(), kLengthBytes);
  SPECMOE_CHECK(header_bytes <= kMaxHeaderBytes, path, ": header of ", header_bytes, " bytes, at most ",
                kMaxHeaderBytes, " are allowed; not a safetensors file?");
  SPECMOE_CHECK(header_bytes <= file_.size() - kLengthBytes, path, ": header of ", header_bytes,
                " bytes does not fit a file of ", file_.size(), " bytes (truncated: copy it again)");
  const std::byte* data = file_.data() + kLengthBytes + header_bytes;
  tensors_ = parse_safetensors_header({reinterpret_cast<const char*>(file_.data()) + kLengthBytes, header_bytes},
                                      file_.size() - kLengthBytes - header_bytes, path);
  for (Tensor& tensor : tensors_) tensor.data = data + tensor.begin;
}

}  // namespace specmoe::nn
