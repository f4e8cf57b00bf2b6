#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace specmoe::cli {

/// A short name of a text's content: FNV-1a of 64 bits, in hexadecimal.
std::string digest(std::string_view text);

/// A short name of what a file or a model's folder holds (its .json, .safetensors and .gguf files), so that results of
/// a model that was trained further are not taken for results of this one. Files over 1 MiB are sampled evenly. Empty
/// for a path that is not there.
std::string fingerprint(const std::filesystem::path& path);

}  // namespace specmoe::cli
