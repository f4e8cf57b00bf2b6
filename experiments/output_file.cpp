#include "experiments/output_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "experiments/interrupt.h"
#include "experiments/sync_path.h"
#include "kernels/check.h"

namespace specmoe::cli {

namespace fs = std::filesystem;

namespace {

/// Whether a path names a device, a pipe or something of a process, such as /dev/stdout, whatever stands behind it.
bool is_special(const fs::path& path, const fs::file_status& status) {
  const std::string text = path.string();
  return text.starts_with("/dev/") || text.starts_with("/proc/") ||
         (fs::exists(status) && !fs::is_regular_file(status));
}

/// Whether the open file is still the one of that name.
bool has_name(int file, const fs::path& name) {
  struct stat opened{}, named{};
  return fstat(file, &opened) == 0 && stat(name.c_str(), &named) == 0 && opened.st_dev == named.st_dev &&
         opened.st_ino == named.st_ino;
}

}  // namespace

OutputFile::OutputFile(fs::path path) : path_(std::move(path)) {
  if (path_.empty()) return;
  std::error_code error;
  const fs::file_status status = fs::status(path_, error);
  SPECMOE_CHECK(!fs::is_directory(status), "--output: '", path_.string(), "' is a folder; give a file name");
  if (is_special(path_, status)) {
    open(path_, O_APPEND);
    return;
  }
  // A link stays one: what it points to is replaced.
  if (fs::is_symlink(path_, error) && fs::exists(status)) path_ = fs::canonical(path_);
  open_alone();
}

OutputFile::~OutputFile() {
  if (file_ < 0) return;
  if (!committed_ && !temporary_.empty()) ::unlink(temporary_.c_str());
  ::close(file_);
}

void OutputFile::open(const fs::path& path, int flags) {
  file_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | flags, 0666);
  SPECMOE_CHECK(file_ >= 0, "--output: cannot write '", path_.string(), "': ", std::strerror(errno),
                "; give a path in an existing, writable folder");
}

void OutputFile::open_alone() {
  const fs::path name = path_.string() + ".tmp";
  for (bool mine = false; !mine;) {
    open(name, O_CREAT);
    const bool locked = ::flock(file_, LOCK_EX | LOCK_NB) == 0;
    // A run that just ended may have given the file its final name between the two calls.
    mine = locked && has_name(file_, name);
    if (!mine) ::close(std::exchange(file_, -1));
    SPECMOE_CHECK(locked, "--output: another run is writing '", path_.string(), "'; wait for it or give another file");
  }
  temporary_ = name;
  SPECMOE_CHECK(::ftruncate(file_, 0) == 0, "--output: cannot write '", path_.string(), "': ", std::strerror(errno));
}

void OutputFile::line(std::string_view text) {
  constexpr std::size_t kWriteBytes = 1 << 16;
  if (path_.empty()) return;
  waiting_.append(text).push_back('\n');
  if (waiting_.size() >= kWriteBytes || temporary_.empty()) write_waiting();
}

void OutputFile::write_waiting() {
  std::string_view left = waiting_;
  while (!left.empty()) {
    const ssize_t wrote = ::write(file_, left.data(), left.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && errno == EPIPE) poll_interrupt();
    SPECMOE_CHECK(wrote > 0, "--output: writing '", path_.string(), "' failed: ", std::strerror(errno));
    left.remove_prefix(static_cast<std::size_t>(wrote));
  }
  waiting_.clear();
}

void OutputFile::commit() {
  if (path_.empty()) return;
  write_waiting();
  if (temporary_.empty()) return;
  SPECMOE_CHECK(::fsync(file_) == 0, "--output: writing '", path_.string(), "' failed: ", std::strerror(errno));
  std::error_code error;
  fs::rename(temporary_, path_, error);
  SPECMOE_CHECK(!error, "--output: cannot write '", path_.string(), "': ", error.message());
  committed_ = true;
  sync_path("output", folder_of(path_));
}

}  // namespace specmoe::cli
