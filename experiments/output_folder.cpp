#include "experiments/output_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernels/check.h"

namespace specmoe::cli {

namespace fs = std::filesystem;

OutputFolder::OutputFolder(fs::path path) : path_(std::move(path)) {
  std::error_code error;
  if (path_.filename().empty()) path_ = path_.parent_path();  // "DIR/"
  SPECMOE_CHECK(!fs::exists(path_, error) || fs::is_empty(path_, error), "--out: '", path_.string(),
                "' is there already; give a new folder, or remove it first");
  temporary_ = concat(path_.string(), ".tmp-", getpid());
  SPECMOE_CHECK(fs::create_directory(temporary_, error), "--out: cannot make '", path_.string(),
                "': ", error ? error.message() : "File exists", "; give a path in an existing, writable folder");
}

OutputFolder::~OutputFolder() {
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
}

namespace {

/// Waits until a file, or a folder's list of names, is on the disk.
void sync_path(const fs::path& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool done = file >= 0 && fsync(file) == 0;
  const int error = errno;
  if (file >= 0) close(file);
  SPECMOE_CHECK(done, "--out: cannot write '", path.string(), "' to the disk: ", std::strerror(error));
}

}  // namespace

void OutputFolder::commit() {
  // In this order a crash leaves the whole folder or none.
  for (const auto& entry : fs::recursive_directory_iterator(temporary_)) sync_path(entry.path());
  sync_path(temporary_);
  std::error_code error;
  fs::rename(temporary_, path_, error);
  SPECMOE_CHECK(!error, "--out: cannot write '", path_.string(), "': ", error.message());
  sync_path(path_.has_parent_path() ? path_.parent_path() : fs::path("."));
}

}  // namespace specmoe::cli
