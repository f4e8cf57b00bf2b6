#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/nn/gguf.h"

namespace specmoe::nn {

/// A name out of a file, fit for a one-line message.
std::string shown(std::string_view text);

/// Reads the header of a GGUF file from its front: numbers, texts, and the values of its metadata. Throws Error rather
/// than pass the end of the file.
class GgufReader {
 public:
  /// file: its bytes, which outlive the texts that are read. what: how errors name it.
  GgufReader(std::span<const std::byte> file, const std::string& what) : file_(file), what_(what) {}

  std::uint64_t position() const { return position_; }

  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)), sizeof(T));
    return value;
  }
  /// Plain ASCII without spaces. kind: what it names, for errors.
  std::string name(const char* kind);
  /// A count of things of at least `least_bytes` each, which must be there.
  std::uint64_t count(const char* things, std::uint64_t least_bytes);
  /// A metadata value with its type in front of it.
  GgufValue value(const std::string& key);

 private:
  enum class ValueType : std::uint32_t;

  std::uint64_t left() const { return file_.size() - position_; }
  const std::byte* take(std::uint64_t bytes);
  std::string_view text(const char* kind, std::uint64_t most);
  std::string_view text(const char* kind) { return text(kind, left()); }
  std::optional<std::int64_t> integer(ValueType type, const std::string& key);
  std::optional<double> real(ValueType type);
  bool truth(const std::string& key);
  GgufValue array(const std::string& key);

  std::span<const std::byte> file_;
  const std::string& what_;
  std::uint64_t position_ = 0;
};

}  // namespace specmoe::nn
