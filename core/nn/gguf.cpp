#include "core/nn/gguf.h"

#include <algorithm>
#include <bit>
#include <set>

#include "core/nn/gguf_reader.h"
#include "kernels/check.h"

namespace specmoe::nn {
namespace {

constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr std::uint32_t kMaxDimensions = 4;

class Parser {
 public:
  Parser(std::span<const std::byte> file, const std::string& what) : file_(file), what_(what), reader_(file, what) {}

  GgufContents parse();

 private:
  void check_preamble();
  void read_metadata(std::uint64_t count);
  void read_tensor();
  void place_tensors();
  std::uint64_t alignment() const;

  std::span<const std::byte> file_;
  const std::string& what_;
  GgufReader reader_;
  GgufContents contents_;
  std::vector<std::uint64_t> offsets_;  // of tensors, relative to the data
};

void Parser::check_preamble() {
  SPECMOE_CHECK(file_.size() >= 24, what_, ": ", file_.size(), " bytes are too few for a GGUF file");
  const auto magic = reader_.number<std::uint32_t>();
  SPECMOE_CHECK(magic == kMagic, what_, ": does not begin with \"GGUF\"; not a GGUF file");
  const auto version = reader_.number<std::uint32_t>();
  SPECMOE_CHECK((version & 0xffffU) != 0, what_, ": is big-endian; only little-endian GGUF is supported");
  SPECMOE_CHECK(version == 2 || version == 3, what_, ": GGUF version ", version, " is not supported; known: 2, 3");
}

void Parser::read_metadata(std::uint64_t count) {
  for (; count > 0; --count) {
    const std::string key = reader_.name("key");
    const bool is_new = contents_.metadata.emplace(key, reader_.value(key)).second;
    SPECMOE_CHECK(is_new, what_, ": key ", shown(key), " is there twice");
  }
}

std::uint64_t product(const std::vector<std::int64_t>& shape, const std::string& what, const std::string& name) {
  std::uint64_t total = 1;
  for (const std::int64_t size : shape) {
    SPECMOE_CHECK(!__builtin_mul_overflow(total, static_cast<std::uint64_t>(size), &total), what, ": tensor ", name,
                  " is larger than any memory");
  }
  return total;
}

void Parser::read_tensor() {
  GgufTensor tensor;
  tensor.name = reader_.name("tensor");
  const std::string label = shown(tensor.name);
  const auto dimensions = reader_.number<std::uint32_t>();
  SPECMOE_CHECK(dimensions >= 1 && dimensions <= kMaxDimensions, what_, ": tensor ", label, " has ", dimensions,
                " dimensions, expected 1 to ", kMaxDimensions);
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    const auto size = reader_.number<std::uint64_t>();
    SPECMOE_CHECK(size >= 1 && size <= INT64_MAX, what_, ": tensor ", label, " has a dimension of ", size);
    tensor.shape.insert(tensor.shape.begin(), static_cast<std::int64_t>(size));
  }
  const auto id = reader_.number<std::uint32_t>();
  tensor.type = find_ggml_type(id);
  SPECMOE_CHECK(tensor.type != nullptr, what_, ": tensor ", label, " has type ", describe_ggml_type(id),
                ", which is not supported; known: ", ggml_type_names());
  const GgmlType& type = *tensor.type;
  SPECMOE_CHECK(tensor.shape.back() % type.block == 0, what_, ": tensor ", label, " has rows of ", tensor.shape.back(),
                " elements, ", type.name, " needs a multiple of ", type.block);
  const std::uint64_t blocks = product(tensor.shape, what_, label) / static_cast<std::uint64_t>(type.block);
  const bool fits = !__builtin_mul_overflow(blocks, static_cast<std::uint64_t>(type.block_bytes), &tensor.bytes);
  SPECMOE_CHECK(fits, what_, ": tensor ", label, " is larger than any memory");
  offsets_.push_back(reader_.number<std::uint64_t>());
  contents_.tensors.push_back(std::move(tensor));
}

std::uint64_t Parser::alignment() const {
  const auto found = contents_.metadata.find("general.alignment");
  if (found == contents_.metadata.end()) return 32;
  const auto* value = std::get_if<std::int64_t>(&found->second);
  constexpr std::int64_t kMost = 1 << 20;
  SPECMOE_CHECK(value != nullptr && *value >= 1 && *value <= kMost && std::has_single_bit(std::uint64_t(*value)), what_,
                ": general.alignment must be a power of two up to ", kMost);
  return static_cast<std::uint64_t>(*value);
}

/// Where the tensors are, after the header and padding.
void Parser::place_tensors() {
  const std::uint64_t unit = alignment();
  const std::uint64_t begin = (reader_.position() + unit - 1) / unit * unit;
  const std::uint64_t room = begin < file_.size() ? file_.size() - begin : 0;
  std::vector<std::size_t> order(offsets_.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    order[i] = i;
    GgufTensor& tensor = contents_.tensors[i];
    const std::string label = shown(tensor.name);
    SPECMOE_CHECK(offsets_[i] % unit == 0, what_, ": tensor ", label, " lies at offset ", offsets_[i],
                  ", expected a multiple of ", unit);
    SPECMOE_CHECK(offsets_[i] <= room && tensor.bytes <= room - offsets_[i], what_, ": tensor ", label, " of ",
                  tensor.bytes, " bytes at offset ", offsets_[i], " passes the end of the data, ", room,
                  " bytes (truncated: copy it again)");
    tensor.data = file_.data() + begin + offsets_[i];
  }
  std::sort(order.begin(), order.end(), [this](std::size_t a, std::size_t b) { return offsets_[a] < offsets_[b]; });
  for (std::size_t i = 1; i < order.size(); ++i) {
    const GgufTensor& before = contents_.tensors[order[i - 1]];
    const GgufTensor& after = contents_.tensors[order[i]];
    SPECMOE_CHECK(offsets_[order[i - 1]] + before.bytes <= offsets_[order[i]], what_, ": tensors ", shown(before.name),
                  " and ", shown(after.name), " overlap");
  }
}

GgufContents Parser::parse() {
  check_preamble();
  constexpr std::uint64_t kLeastTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;
  constexpr std::uint64_t kLeastPairBytes = 8 + 1 + 4 + 1;
  const std::uint64_t tensors = reader_.count("tensors", kLeastTensorBytes);
  const std::uint64_t pairs = reader_.count("metadata values", kLeastPairBytes);
  read_metadata(pairs);
  for (std::uint64_t i = 0; i < tensors; ++i) read_tensor();
  std::set<std::string_view> names;
  for (const GgufTensor& tensor : contents_.tensors) {
    SPECMOE_CHECK(names.insert(tensor.name).second, what_, ": tensor ", shown(tensor.name), " is there twice");
  }
  place_tensors();
  return std::move(contents_);
}

}  // namespace

GgufContents GgufContents::parse(std::span<const std::byte> file, const std::string& what) {
  return Parser(file, what).parse();
}

GgufFile::GgufFile(const std::string& path)
    : path_(path), file_(path), contents_(GgufContents::parse({file_.data(), file_.size()}, path)) {}

const GgufTensor* GgufFile::tensor(std::string_view name) const {
  const auto found =
      std::find_if(tensors().begin(), tensors().end(), [&](const GgufTensor& tensor) { return tensor.name == name; });
  return found == tensors().end() ? nullptr : &*found;
}

template <class T>
const T* GgufFile::get(std::string_view key, const char* wanted) const {
  const auto found = contents_.metadata.find(key);
  if (found == contents_.metadata.end()) return nullptr;
  const T* value = std::get_if<T>(&found->second);
  SPECMOE_CHECK(value != nullptr, path_, ": ", key, " must be ", wanted);
  return value;
}

const std::int64_t* GgufFile::integer(std::string_view key) const { return get<std::int64_t>(key, "an integer"); }
const bool* GgufFile::boolean(std::string_view key) const { return get<bool>(key, "true or false"); }
const std::string_view* GgufFile::text(std::string_view key) const { return get<std::string_view>(key, "a string"); }
const std::vector<std::int64_t>* GgufFile::integers(std::string_view key) const {
  return get<std::vector<std::int64_t>>(key, "a list of integers");
}
const std::vector<double>* GgufFile::numbers(std::string_view key) const {
  return get<std::vector<double>>(key, "a list of floats");
}
const std::vector<std::string_view>* GgufFile::texts(std::string_view key) const {
  return get<std::vector<std::string_view>>(key, "a list of strings");
}

}  // namespace specmoe::nn
