#include "experiments/output_folder.h"

#include <unistd.h>

#include "experiments/sync_path.h"
#include "kernels/check.h"

namespace specmoe::cli {

namespace fs = std::filesystem;

OutputFolder::OutputFolder(fs::path path) : path_(std::move(path)) {
  std::error_code error;
  if (path_.filename().empty()) path_ = path_.parent_path();  // "DIR/"
  SPECMOE_CHECK(path_.filename() != "." && path_.filename() != "..", "--out: '", path_.string(),
                "' is no name that a folder can be given; give a new folder");
  // A link stays one: the empty folder that it points to is replaced.
  if (fs::is_symlink(path_, error) && fs::is_directory(path_, error)) path_ = fs::canonical(path_);
  const bool empty = fs::is_directory(path_, error) && fs::is_empty(path_, error);
  SPECMOE_CHECK(empty || !fs::exists(fs::symlink_status(path_, error)), "--out: '", path_.string(),
                "' is there already; give a new folder, or remove it first");
  temporary_ = concat(path_.string(), ".tmp-", getpid());
  SPECMOE_CHECK(fs::create_directory(temporary_, error), "--out: cannot make '", path_.string(),
                "': ", error ? error.message() : "File exists", "; give a path in an existing, writable folder");
}

OutputFolder::~OutputFolder() {
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
}

void OutputFolder::commit() {
  // In this order a crash leaves the whole folder or none.
  for (const auto& entry : fs::recursive_directory_iterator(temporary_)) sync_path("out", entry.path());
  sync_path("out", temporary_);
  std::error_code error;
  fs::rename(temporary_, path_, error);
  SPECMOE_CHECK(!error, "--out: cannot write '", path_.string(), "': ", error.message());
  sync_path("out", folder_of(path_));
}

}  // namespace specmoe::cli
