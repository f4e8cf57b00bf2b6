#include "experiments/cells_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/results.h"
#include "kernels/check.h"

namespace specmoe::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// The cell that a line is about. Throws Error when it is no line of this version.
std::string cell_of(const std::string& line, const std::string& where) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  SPECMOE_CHECK(json.is_object() && json.contains("kind") && json["kind"].is_string(), where,
                ": not a line that bench wrote; mend it, remove it or give another file (nothing was changed)");
  const Json schema = json.value("schema", Json(0));
  SPECMOE_CHECK(schema == kResultSchema, where, ": written in version ",
                schema.dump(-1, ' ', true, Json::error_handler_t::replace), " of the format, this program reads ",
                kResultSchema, "; give another file (nothing was changed)");
  const std::string kind = json["kind"].get<std::string>();
  SPECMOE_CHECK((kind == "summary" || kind == "failed") && json.contains("cell") && json["cell"].is_string(), where,
                ": a line of kind '", kind, "' is no cell; give another file (nothing was changed)");
  return json["cell"].get<std::string>();
}

}  // namespace

CellsFile::CellsFile(fs::path path, Progress& progress) : path_(std::move(path)) {
  if (path_.empty()) return;
  try {
    open();
    read(progress);
  } catch (...) {
    if (file_ >= 0) ::close(file_);
    if (created_) ::unlink(path_.c_str());
    throw;
  }
}

CellsFile::~CellsFile() {
  if (file_ < 0) return;
  if (created_ && empty_) ::unlink(path_.c_str());
  ::close(file_);
}

void CellsFile::open() {
  std::error_code error;
  const bool there = fs::exists(path_, error);
  SPECMOE_CHECK(!there || fs::is_regular_file(path_, error), "--cells: '", path_.string(),
                "' is no file that lines can be appended to; give a file name");
  file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  SPECMOE_CHECK(file_ >= 0, "--cells: cannot write '", path_.string(), "': ", std::strerror(errno),
                "; give a path in an existing, writable folder");
  created_ = !there;
  SPECMOE_CHECK(::flock(file_, LOCK_EX | LOCK_NB) == 0, "--cells: another run is writing '", path_.string(),
                "'; wait for it or give another file");
}

void CellsFile::read(Progress& progress) {
  std::ifstream stream(path_, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(stream), {});
  std::size_t begin = 0;
  for (int number = 1; begin < text.size(); ++number) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;
    std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.empty()) continue;
    const std::string cell = cell_of(line, concat("--cells: '", path_.string(), "', line ", number));
    lines_.emplace(cell, std::move(line));
  }
  empty_ = text.empty();
  if (begin == text.size()) return;
  SPECMOE_CHECK(begin > 0 || text[0] == '{', "--cells: '", path_.string(),
                "', line 1: not a line that bench wrote; give another file (nothing was changed)");
  SPECMOE_CHECK(::ftruncate(file_, static_cast<off_t>(begin)) == 0, "--cells: cannot shorten '", path_.string(),
                "': ", std::strerror(errno));
  progress.say(concat("dropped a half-written last line of ", path_.string(), " (", text.size() - begin,
                      " bytes): its cell is measured again"));
}

const std::string* CellsFile::find(const std::string& cell) const {
  const auto found = lines_.find(cell);
  return found == lines_.end() ? nullptr : &found->second;
}

void CellsFile::append(const std::string& line) {
  if (file_ < 0) return;
  const std::string text = line + "\n";
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t wrote = ::write(file_, text.data() + done, text.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    SPECMOE_CHECK(wrote > 0, "--cells: writing '", path_.string(), "' failed: ", std::strerror(errno),
                  "; the cells before this one are safe");
    done += static_cast<std::size_t>(wrote);
  }
  empty_ = false;
  SPECMOE_CHECK(::fsync(file_) == 0, "--cells: writing '", path_.string(), "' failed: ", std::strerror(errno));
}

}  // namespace specmoe::cli
