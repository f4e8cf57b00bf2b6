#include "core/nn/gguf_reader.h"

#include <algorithm>

#include "kernels/check.h"

namespace specmoe::nn {

std::string shown(std::string_view text) {
  std::string clean(text.substr(0, 80));
  for (char& c : clean) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return clean;
}

/// Value types as the file numbers them.
enum class GgufReader::ValueType : std::uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

const std::byte* GgufReader::take(std::uint64_t bytes) {
  SPECMOE_CHECK(bytes <= left(), what_, ": ends at byte ", file_.size(),
                " in the middle of its header (truncated: copy it again)");
  const std::byte* from = file_.data() + position_;
  position_ += bytes;
  return from;
}

std::string_view GgufReader::text(const char* kind, std::uint64_t most) {
  const auto length = number<std::uint64_t>();
  SPECMOE_CHECK(length <= most, what_, ": ", kind, " of ", length, " bytes at byte ", position_, ", at most ", most,
                " fit");
  const auto* begin = reinterpret_cast<const char*>(take(length));
  return {begin, length};
}

std::string GgufReader::name(const char* kind) {
  constexpr std::uint64_t kMostBytes = 1 << 16;
  const std::string_view given = text(kind, kMostBytes);
  const bool plain = std::all_of(given.begin(), given.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f; });
  SPECMOE_CHECK(plain && !given.empty(), what_, ": ", kind, " '", shown(given), "' is not plain ASCII");
  return std::string(given);
}

std::uint64_t GgufReader::count(const char* things, std::uint64_t least_bytes) {
  const auto count = number<std::uint64_t>();
  SPECMOE_CHECK(count <= left() / least_bytes, what_, ": promises ", count, " ", things, ", but only ", left(),
                " bytes follow (truncated: copy it again)");
  return count;
}

/// One integer, nothing when `type` is none.
std::optional<std::int64_t> GgufReader::integer(ValueType type, const std::string& key) {
  switch (type) {
    case ValueType::kUint8:
      return number<std::uint8_t>();
    case ValueType::kInt8:
      return number<std::int8_t>();
    case ValueType::kUint16:
      return number<std::uint16_t>();
    case ValueType::kInt16:
      return number<std::int16_t>();
    case ValueType::kUint32:
      return number<std::uint32_t>();
    case ValueType::kInt32:
      return number<std::int32_t>();
    case ValueType::kInt64:
      return number<std::int64_t>();
    case ValueType::kUint64: {
      const auto value = number<std::uint64_t>();
      SPECMOE_CHECK(value <= INT64_MAX, what_, ": ", key, " = ", value, " is out of range");
      return static_cast<std::int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> GgufReader::real(ValueType type) {
  if (type == ValueType::kFloat32) return number<float>();
  if (type == ValueType::kFloat64) return number<double>();
  return std::nullopt;
}

bool GgufReader::truth(const std::string& key) {
  const auto byte = number<std::uint8_t>();
  SPECMOE_CHECK(byte <= 1, what_, ": ", key, " must be true or false, got byte ", int{byte});
  return byte == 1;
}

GgufValue GgufReader::array(const std::string& key) {
  const auto id = number<std::uint32_t>();
  const auto type = static_cast<ValueType>(id);
  if (type == ValueType::kString) {
    std::vector<std::string_view> texts(count("strings", sizeof(std::uint64_t)));
    for (std::string_view& one : texts) one = text("a string");
    return texts;
  }
  if (type == ValueType::kFloat32 || type == ValueType::kFloat64) {
    std::vector<double> numbers(count("floats", type == ValueType::kFloat32 ? 4 : 8));
    for (double& number : numbers) number = *real(type);
    return numbers;
  }
  SPECMOE_CHECK(id <= static_cast<std::uint32_t>(ValueType::kFloat64) && type != ValueType::kArray, what_, ": ", key,
                " is a list of values of type ", id, ", which is not supported");
  std::vector<std::int64_t> integers;
  for (std::uint64_t left = count("elements", 1); left > 0; --left) {
    integers.push_back(type == ValueType::kBool ? truth(key) : *integer(type, key));
  }
  return integers;
}

GgufValue GgufReader::value(const std::string& key) {
  const auto id = number<std::uint32_t>();
  const auto type = static_cast<ValueType>(id);
  if (type == ValueType::kString) return text("a string");
  if (type == ValueType::kArray) return array(key);
  if (type == ValueType::kBool) return truth(key);
  if (const auto value = real(type)) return *value;
  const auto value = integer(type, key);
  SPECMOE_CHECK(value.has_value(), what_, ": ", key, " has a value of unknown type ", id);
  return *value;
}

}  // namespace specmoe::nn
