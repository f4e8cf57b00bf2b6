#include "experiments/output_file.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "kernels/check.h"

namespace specmoe::cli {

namespace fs = std::filesystem;

OutputFile::OutputFile(fs::path path) : path_(std::move(path)) {
  if (path_.empty()) return;
  std::error_code error;
  const fs::file_status status = fs::status(path_, error);
  SPECMOE_CHECK(!fs::is_directory(status), "--output: '", path_.string(), "' is a folder; give a file name");
  if (!fs::exists(status) || fs::is_regular_file(status)) temporary_ = path_.string() + ".tmp";
  errno = 0;
  stream_.open(temporary_.empty() ? path_ : temporary_, std::ios::binary | std::ios::trunc);
  if (!stream_) {
    const std::string reason = errno != 0 ? std::strerror(errno) : "it could not be opened";
    temporary_.clear();
    fail("--output: cannot write '", path_.string(), "': ", reason, "; give a path in an existing, writable folder");
  }
}

OutputFile::~OutputFile() {
  if (committed_ || temporary_.empty()) return;
  stream_.close();
  std::error_code ignored;
  fs::remove(temporary_, ignored);
}

void OutputFile::line(std::string_view text) {
  if (!path_.empty()) stream_ << text << '\n';
}

void OutputFile::commit() {
  if (path_.empty()) return;
  stream_.close();
  SPECMOE_CHECK(stream_, "--output: writing '", path_.string(), "' failed; is the disk full?");
  if (!temporary_.empty()) {
    std::error_code error;
    fs::rename(temporary_, path_, error);
    SPECMOE_CHECK(!error, "--output: cannot write '", path_.string(), "': ", error.message());
  }
  committed_ = true;
}

}  // namespace specmoe::cli
