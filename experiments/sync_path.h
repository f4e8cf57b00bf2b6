#pragma once

#include <filesystem>
#include <string>

namespace specmoe::cli {

/// Waits until a file, or a folder's list of names, is on the disk. flag: how errors name what was asked for.
void sync_path(const std::string& flag, const std::filesystem::path& path);

/// The folder that a path is in: `.` for a bare name.
std::filesystem::path folder_of(const std::filesystem::path& path);

}  // namespace specmoe::cli
