#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace specmoe::nn {

/// A tensor to be written.
struct NewTensor {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::uint64_t bytes = 0;
};

/// A safetensors file whose tensors are filled in any order, by any number of threads.
class SafetensorsWriter {
 public:
  /// Makes the file at its full size. Wider elements come first, so that all are aligned; names among equals.
  ///
  /// metadata  besides "data_sha256" and "source_sha256", which finish() fills
  /// throws    Error when the file is there already, or the disk is full
  SafetensorsWriter(const std::string& path, std::vector<NewTensor> tensors,
                    std::map<std::string, std::string> metadata);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  /// Bytes [offset, offset + bytes.size()) of a tensor.
  void write(const std::string& name, std::uint64_t offset, std::span<const std::byte> bytes);

  /// To be called once, when all is written. Returns "data_sha256", which is of the bytes behind the header.
  std::string finish(const std::string& source_sha256);

 private:
  void write_at(std::uint64_t at, std::span<const std::byte> bytes);
  void set_hash(const std::string& key, const std::string& hash);

  std::string path_;
  int file_ = -1;
  std::map<std::string, std::uint64_t> places_;  // name: first byte in the file
  std::uint64_t data_begin_ = 0;
  std::string header_;
};

}  // namespace specmoe::nn
