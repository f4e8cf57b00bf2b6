#include "core/provenance.h"

#include <dlfcn.h>
#include <sched.h>

#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>

namespace specmoe {
namespace {

std::string shell_quoted(const std::string& text) {
  std::string quoted = "'";
  for (char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

/// The folder of the shared library that this function is in.
std::string library_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&collect_provenance), &info) == 0 || info.dli_fname == nullptr) return ".";
  std::error_code error;
  const std::filesystem::path file = std::filesystem::canonical(info.dli_fname, error);
  return error ? "." : file.parent_path().string();
}

/// The commit that the library was built from. An installed one may lie in somebody else's repository: that does not
/// count.
std::string git_commit() {
  const std::string git = "git --no-optional-locks -c safe.directory='*' -C " + shell_quoted(library_folder());
  // `describe --dirty` would write the checkout's index, whatever it is told about locks.
  const std::string command = "if test -f \"$(" + git + " rev-parse --show-toplevel)/core/provenance.cpp\"; then " +
                              git + " rev-parse --verify HEAD | tr -d '\\n'; test -z \"$(" + git +
                              " status --porcelain --untracked-files=no)\" || echo -dirty; fi 2>/dev/null";
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  char line[128] = "";
  if (!pipe || std::fgets(line, sizeof line, pipe.get()) == nullptr) return "unknown";
  std::string commit = line;
  while (!commit.empty() && commit.back() == '\n') commit.pop_back();
  return commit.empty() ? "unknown" : commit;
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace

Provenance collect_provenance() {
#if defined(__clang__)
  const std::string compiler = "clang " __clang_version__;
#else
  const std::string compiler = "gcc " __VERSION__;
#endif
  return {git_commit(), compiler, cpu_name(), usable_cores(), utc_now()};
}

}  // namespace specmoe
