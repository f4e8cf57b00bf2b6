#include "experiments/progress.h"

#include <unistd.h>

#include <iostream>

#include "experiments/table.h"
#include "kernels/check.h"

namespace specmoe::cli {

Progress::Progress(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) == 1) {}

void Progress::say(const std::string& text) {
  if (quiet_) return;
  clear();
  std::cerr << text << std::endl;
}

void Progress::step(int done, int total, const std::string& text) {
  if (quiet_) return;
  constexpr std::chrono::seconds kBetweenLines{5};
  const Clock::time_point now = Clock::now();
  if (!terminal_ && now - last_ < kBetweenLines) return;
  if (done == 0) begin_ = now;
  last_ = now;
  std::string line = concat("[", done, "/", total, "] ", text);
  if (done > 0) {
    const double left = std::chrono::duration<double>(now - begin_).count() / done * (total - done);
    line += ", " + fixed(left, 0) + " s left";
  }
  if (terminal_) {
    std::cerr << "\r\033[K" << line << std::flush;
    line_open_ = true;
  } else {
    std::cerr << line << std::endl;
  }
}

void Progress::clear() {
  if (line_open_) std::cerr << "\r\033[K" << std::flush;
  line_open_ = false;
}

}  // namespace specmoe::cli
