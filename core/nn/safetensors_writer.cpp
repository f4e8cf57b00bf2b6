#include "core/nn/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/nn/sha256.h"
#include "kernels/check.h"

namespace specmoe::nn {

using Json = nlohmann::ordered_json;

namespace {

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kAlignment = 8;
const std::string kNoHash(64, '0');

std::uint64_t element_bytes(const NewTensor& tensor) {
  std::uint64_t elements = 1;
  for (const std::int64_t size : tensor.shape) elements *= static_cast<std::uint64_t>(size);
  return elements == 0 ? 0 : tensor.bytes / elements;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<NewTensor> tensors,
                                     std::map<std::string, std::string> metadata)
    : path_(path) {
  std::sort(tensors.begin(), tensors.end(), [](const NewTensor& a, const NewTensor& b) {
    return std::pair(element_bytes(b), a.name) < std::pair(element_bytes(a), b.name);
  });
  metadata["data_sha256"] = metadata["source_sha256"] = kNoHash;
  Json header;
  header["__metadata__"] = metadata;
  std::uint64_t at = 0;
  for (const NewTensor& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {at, at + tensor.bytes}}};
    places_[tensor.name] = at;
    at += tensor.bytes;
  }
  header_ = header.dump();
  header_.append((kAlignment - header_.size() % kAlignment) % kAlignment, ' ');
  data_begin_ = kLengthBytes + header_.size();
  file_ = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  SPECMOE_CHECK(file_ >= 0, "cannot write ", path, ": ", std::strerror(errno));
  const int error = posix_fallocate(file_, 0, static_cast<off_t>(data_begin_ + at));
  if (error != 0) close(file_);
  SPECMOE_CHECK(error == 0, "cannot write ", data_begin_ + at, " bytes to ", path, ": ", std::strerror(error));
  for (auto& [name, place] : places_) place += data_begin_;
  const std::uint64_t length = header_.size();
  write_at(0, std::as_bytes(std::span(&length, 1)));
  write_at(kLengthBytes, std::as_bytes(std::span(header_)));
}

SafetensorsWriter::~SafetensorsWriter() { close(file_); }

void SafetensorsWriter::write(const std::string& name, std::uint64_t offset, std::span<const std::byte> bytes) {
  write_at(places_.at(name) + offset, bytes);
}

std::string SafetensorsWriter::finish(const std::string& source_sha256) {
  const std::string hash = sha256_of_file(path_, data_begin_);
  set_hash("data_sha256", hash);
  set_hash("source_sha256", source_sha256);
  return hash;
}

/// In the place that the header has for it; the metadata come first in it.
void SafetensorsWriter::set_hash(const std::string& key, const std::string& hash) {
  const std::string before = "\"" + key + "\":\"";
  write_at(kLengthBytes + header_.find(before) + before.size(), std::as_bytes(std::span(hash)));
}

void SafetensorsWriter::write_at(std::uint64_t at, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (done < 0 && errno == EINTR) continue;
    SPECMOE_CHECK(done > 0, "cannot write ", path_, ": ", std::strerror(errno));
    at += static_cast<std::uint64_t>(done);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
}

}  // namespace specmoe::nn
